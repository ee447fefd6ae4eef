"""What takes the place of functions of libraries is told, and what they do themselves is not."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import types
import warnings

import pytest
import torch

from saver_conformance.workload.library_functions import LibraryFunctions


@pytest.fixture
def functions():
    found = LibraryFunctions()
    assert found.look() == {}
    return found


def defined_in(module, text="def function(*arguments): pass"):
    """A function of a module that is imported now."""
    names = {"__name__": module}
    exec(text, names)  # the only way to a function with other globals
    return names["function"]


def test_look_nothing_replaced_says_nothing(functions):
    assert functions.look() == {}


@pytest.mark.parametrize("wrap", [lambda new: new, functools.wraps(shutil.move), functools.partial])
def test_look_replaced_function_is_named(functions, monkeypatch, wrap):
    monkeypatch.setattr(shutil, "move", wrap(lambda *arguments: None))
    (name, text), *others = functions.look().items()
    assert (name, others) == ("shutil.move", [])
    assert "in place of move of shutil" in text


@pytest.mark.parametrize("kind", [staticmethod, classmethod, property])
def test_look_replaced_method_is_named(functions, monkeypatch, kind):
    monkeypatch.setattr(json.JSONEncoder, "encode", kind(lambda *arguments: None))
    assert list(functions.look()) == ["json.encoder.JSONEncoder.encode"]


def test_look_removed_function_is_named(functions, monkeypatch):
    monkeypatch.delattr(torch.nn.Linear, "extra_repr")
    found = functions.look()
    assert list(found) == ["torch.nn.modules.linear.Linear.extra_repr"]


def test_look_what_a_library_does_to_itself_is_excused(functions, monkeypatch):
    monkeypatch.setattr(torch, "save", torch.load)
    assert functions.look() == {}


def test_look_what_an_import_brings_is_excused(functions, monkeypatch):
    module = types.ModuleType("patches_when_imported")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch, "save", defined_in(module.__name__))
    assert functions.look() == {}


def test_look_what_is_there_to_be_set_is_excused(functions, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", lambda *arguments: None)
    monkeypatch.setattr(sys, "excepthook", lambda *arguments: None)
    assert functions.look() == {}
