"""Whether what the MLP gained on Shakespeare's letters it gains on another text, all else the same.

Settings and seeds were not chosen for this text: they are those of char-mlp-300k. $STUDY_DATA is
the folder of bible.txt, the King James Bible as Debian has it, a verse a line:

    apt-get install bible-kjv
    bible -f -l10000 Gen1:1-Rev22:21 > data/bible.txt
    STUDY_DATA=data python benchmarks/studies/bible.py
"""

from shakespeare import Text, mlp_task
from study import main

BIBLE = Text("bible.txt", "The King James Bible", "110,091 to choose by, 220,180 to report on")
TASKS = [mlp_task("bible-mlp-300k", 300_000, 128, BIBLE)]

if __name__ == "__main__":
    main(TASKS)
