/* What the system says of this process. */
#ifndef SEALCAST_TEST_PROCESS_H
#define SEALCAST_TEST_PROCESS_H

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static inline int entries(const char *path) {
    int count = 0;
    DIR *folder = opendir(path);
    while (folder && readdir(folder)) {
        count++;
    }
    if (folder) {
        closedir(folder);
    }
    return count;
}

/* How many threads wait for something. */
static inline int sleeping_threads(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/task");
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char path[300], state = 0;
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        FILE *stat = fopen(path, "r");
        if (stat) {
            count += fscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && state == 'S';
            fclose(stat);
        }
    }
    if (folder) {
        closedir(folder);
    }
    return count;
}

static inline long resident_kib(void) {
    char line[256];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        if (sscanf(line, "VmRSS: %ld", &kib) == 1) {
            break;
        }
    }
    if (status) {
        fclose(status);
    }
    return kib;
}

#endif
