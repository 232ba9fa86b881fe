"""The CI files that `snapdrill init --ci` writes: GitHub Actions, GitLab CI, Jenkins."""

from __future__ import annotations

import shlex
from typing import Literal, get_args

Service = Literal["github", "gitlab", "jenkins"]
SERVICES: tuple[Service, ...] = get_args(Service)
PATHS: dict[Service, str] = {
    "github": ".github/workflows/snapdrill.yml",
    "gitlab": ".gitlab-ci.yml",
    "jenkins": "Jenkinsfile",
}
"""Where each service looks for its file, from the top of the repository."""
FILL_IN = "fill in where snapdrill comes from: a wheel in this repository, or git+https://HOST/OWNER/snapdrill@COMMIT"
"""What the file and its run say until that is done. A bare name is never installed: a stranger could register it."""

_GITHUB = """\
# Every scenario of {folder}/ on each change: results as annotations at its lines, and snapdrill.xml (JUnit).
name: snapdrill
on:
  push:
  pull_request:
permissions:
  contents: read
jobs:
  drill:
    runs-on: ubuntu-latest
    timeout-minutes: 15
    env:
      # {fill_in}
      SNAPDRILL: {source}
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - name: install snapdrill
        run: |
          test -n "$SNAPDRILL" || {{ echo "{fill_in}"; exit 2; }}
          python -m pip install "$SNAPDRILL"
      - run: {command} --junit snapdrill.xml
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: snapdrill
          path: |
            snapdrill.xml
            runs/
"""

_GITLAB = """\
# Every scenario of {folder}/ on each change; snapdrill.xml (JUnit) is shown in the merge request.
drill:
  image: python:3.12
  timeout: 15 minutes
  variables:
    # {fill_in}
    SNAPDRILL: {source}
  script:
    - |
      test -n "$SNAPDRILL" || {{ echo "{fill_in}"; exit 2; }}
    - python -m pip install "$SNAPDRILL"
    - {command} --junit snapdrill.xml
  artifacts:
    when: always
    paths:
      - snapdrill.xml
      - runs/
    reports:
      junit: snapdrill.xml
"""

_JENKINS = """\
// Every scenario of {folder}/ on each build; snapdrill.xml is valid by the strict schema of the JUnit plugin.
pipeline {{
    agent any
    options {{
        timeout(time: 15, unit: 'MINUTES')
    }}
    environment {{
        // {fill_in}
        SNAPDRILL = {source}
    }}
    stages {{
        stage('drill') {{
            steps {{
                sh '''
                    test -n "$SNAPDRILL" || {{ echo "{fill_in}"; exit 2; }}
                    python3 -m venv .snapdrill
                    .snapdrill/bin/pip install "$SNAPDRILL"
                    .snapdrill/bin/{command} --junit snapdrill.xml --junit-family xunit2
                '''
            }}
        }}
    }}
    post {{
        always {{
            junit allowEmptyResults: true, testResults: 'snapdrill.xml'
            archiveArtifacts allowEmptyArchive: true, artifacts: 'snapdrill.xml, runs/**'
        }}
    }}
}}
"""

_TEMPLATES: dict[Service, str] = {"github": _GITHUB, "gitlab": _GITLAB, "jenkins": _JENKINS}


def workflow(service: Service, folder: str, source: str | None) -> str:
    """The file's text. `folder` holds the scenarios, relative to the top of the repository; `source` is what pip is
    given, None to leave it to the reader."""
    quote = _groovy if service == "jenkins" else _yaml
    command = shlex.join(["snapdrill", "run", folder])
    return _TEMPLATES[service].format(folder=folder, command=command, source=quote(source or ""), fill_in=FILL_IN)


def _yaml(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _groovy(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
