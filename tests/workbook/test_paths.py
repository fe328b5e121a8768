from pathlib import Path

import pytest

from workbook import paths


def test_the_checkout_is_found_from_the_package() -> None:
    assert (paths.ROOT / "pyproject.toml").is_file()
    assert paths.find_root(paths.ROOT / "support" / "workbook") == paths.ROOT


def test_a_package_outside_a_checkout_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(paths.CheckoutNotFound, match="pip install --editable"):
        paths.find_root(tmp_path / "site-packages" / "workbook")


def test_the_working_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(paths.BUILD_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.build_dir() == paths.ROOT / "build"


def test_the_build_folder_can_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.BUILD_VARIABLE, str(tmp_path / "out"))
    assert paths.build_dir() == tmp_path / "out"
    assert paths.shown(tmp_path / "out" / "runs" / "a" / "x.log") == "build/runs/a/x.log"


def test_messages_show_no_path_of_this_machine() -> None:
    assert paths.shown(paths.DEPLOY / "litellm_config.yaml") == "support/deploy/litellm_config.yaml"
