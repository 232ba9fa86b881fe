"""What a run says when it is over: text, JSON, JUnit and HTML, all from the same view."""
