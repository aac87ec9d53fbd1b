"""What others offer for the same work: installed from Debian's packages, run beside Sealcast in turns."""
