import io.sealcast.Identity
import io.sealcast.SealcastException
import java.nio.file.Path
import java.time.Duration
import kotlin.system.exitProcess

/** Prints what comes on a channel, for so many seconds: Subscribe FOLDER CHANNEL SECONDS */
fun main(arguments: Array<String>) {
    if (arguments.size != 3) {
        System.err.println("usage: Subscribe FOLDER CHANNEL SECONDS")
        exitProcess(2)
    }
    val (folder, channel, seconds) = arguments
    val end = System.nanoTime() + seconds.toLong() * 1_000_000_000
    try {
        Identity.open(Path.of(folder)).use { identity ->
            identity.subscriber(channel).onEvent { System.err.println(it.text()) }.join(Duration.ofSeconds(10)).use {
                while (System.nanoTime() < end) {
                    val message = it.recv(Duration.ofMillis(200)) ?: continue
                    println("${message.publisher()}: ${message.text()}")
                }
            }
        }
    } catch (error: SealcastException) {
        System.err.println("$channel: ${error.status().label()}: ${error.message}")
        exitProcess(error.category().code())
    }
}
