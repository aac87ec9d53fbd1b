"""`sealcast demo`: the whole of Sealcast at work on one machine, and a verdict on it.

command        the options, the signals, the exit code
run            what happens when: the one process that starts, watches and ends all others
plan           who takes part, and how much of everything
site           an authority and enrolled devices, by the command line alone
console        a process: an operator's commands, one after the other
children       the processes and how they are ended
child          what a process of ours says and is told
leash          ends the authority when its parent is gone
publisher      a process: the bedside monitor
subscriber     a process: a receiving device, with its journal
journal        what it writes down
keepsakes      what the removed subscriber keeps for itself
attempt        a process: the removed subscriber tries all it ever held on what it hears
switch         a process: carries packets from group to group, and drops some
evidence       what is read from journals, files and counters afterwards
verdict        the claims, judged from the evidence alone
table          what is shown
"""

from sealcast.cli.demo.command import register

__all__ = ["register"]
