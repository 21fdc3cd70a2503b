"""Students' copies, and grading what comes back, in a batch that no submission can stop.

A submission is graded by processes one below the other::

    grade      the loop: one keeper for each submission, the table, the pages    (loop, feedback)
     └ keeper     watches time, memory and processes; ends everything at the end (keeper)
        └ examiner   runs the student's cells, then the tests                    (examiner, judge)
           └ kernel     the student's cells; answers the tests' calls            (answering)

The tests run in the examiner, never in the kernel. What they call of the student's runs in the
kernel, and arguments and answers pass between the two as plain numbers and texts (`wire`): so
nothing that a student's cell changes, be it ``labkit.checks``, ``assert`` or numpy itself, is there
when an answer is judged, and the hidden tests' text is never in the student's process.
"""
