"""The registered studies are found, and an error in one of them is not taken for their absence."""

import pytest

from cnn_jax import registered_studies


def test_every_study_has_a_cost():
    studies, costs = registered_studies.import_studies()
    assert "lrn" in studies and studies.keys() == costs.keys()


def test_there_are_none_where_none_are_installed(monkeypatch):
    monkeypatch.setattr(registered_studies, "MODULES", ("no_such_studies",))
    assert registered_studies.import_studies() == ({}, {})


def test_a_library_that_a_study_misses_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_studies.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registered_studies, "MODULES", ("broken_studies", "experiments"))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        registered_studies.import_studies()
