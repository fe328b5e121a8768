import os
import subprocess
import sys

import pytest

from workbook.environment import OFFLINE, child_environment, where_our_packages_are
from workbook.paths import ROOT


def test_importing_the_workbook_switches_off_what_calls_home() -> None:
    code = "import os, workbook; print(os.environ['LITELLM_LOCAL_MODEL_COST_MAP'], os.environ['NO_PROXY'])"
    shell = {"PATH": os.environ["PATH"], "NO_PROXY": "intranet"}
    said = subprocess.run([sys.executable, "-c", code], env=shell, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "intranet,127.0.0.1,localhost"]


def test_children_get_no_secret_and_no_setting_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "DATABASE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "HTTPS_PROXY", "PORT"):
        monkeypatch.setenv(name, "from the reader's shell")
    child = child_environment({"PORT": "1"})
    assert "from the reader's shell" not in child.values()
    assert child["PORT"] == "1"
    assert child["PATH"] == os.environ["PATH"]
    assert child.items() >= OFFLINE.items()


def test_children_find_our_packages_where_only_the_path_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert where_our_packages_are() == {}
    monkeypatch.setenv("PYTHONPATH", "somewhere/else")
    assert where_our_packages_are() == {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", f"support{os.pathsep}.")
    assert where_our_packages_are() == {"PYTHONPATH": f"{ROOT / 'support'}{os.pathsep}{ROOT}"}


def test_the_supervisor_and_the_receiver_do_not_wait_for_pandas() -> None:
    code = "import sys, workbook.supervise, workbook.receiver; print({'pandas', 'litellm'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_every_name_of_the_package_can_be_imported() -> None:
    import workbook

    for name in workbook._MODULE_OF:
        assert getattr(workbook, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'stck'"):
        _ = workbook.stck
