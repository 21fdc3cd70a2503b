"""nbgrader's settings for a course that runs it from this folder.

``nbgrader generate_assignment NAME`` makes the same students' copies as ``make assignments``, in
the same place. What nbgrader writes stays in ``build``, which is not kept. Activate the environment
first (``. .venv/bin/activate``), because nbgrader looks for ``alembic`` on the search path.
"""

from pathlib import Path

Path("build").mkdir(exist_ok=True)  # nbgrader makes no folder for its database

c = get_config()  # noqa: F821 - nbgrader provides it

c.CourseDirectory.course_id = "labkit"
c.CourseDirectory.source_directory = "notebooks/assignments"
c.CourseDirectory.release_directory = "build/release"
c.CourseDirectory.submitted_directory = "build/submitted"
c.CourseDirectory.autograded_directory = "build/autograded"
c.CourseDirectory.feedback_directory = "build/feedback"
c.CourseDirectory.db_url = "sqlite:///build/gradebook.db"
