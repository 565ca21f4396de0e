"""The checkers of the exercises: one module a chapter. `grading` says how an answer is judged."""
