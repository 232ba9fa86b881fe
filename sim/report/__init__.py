"""The reports of a finished run: text, JSON, JUnit and HTML, all from the same view."""
