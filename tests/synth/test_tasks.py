"""Tasks by name and option, the parts of `digits`, and what a task of another package can rely on."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from gensynth.backends import Examples
from gensynth.ir import DataError, UsageError
from gensynth.passes.base import OptionValue, option
from gensynth.synth.tasks import (
    SPLITS,
    Digits,
    Task,
    parse_task_options,
    register_task,
    task,
    task_from_mapping,
    tasks,
)


@register_task("stripes")
class Stripes(Task):
    """Stripes along one of two directions."""

    side: int = option(help="pixels along a side")
    contrast: float = option(default=1.0, help="difference of bright and dark")
    labels: int = option(default=2, help="one more than the largest label, wrongly so for 3")

    @property
    def image(self) -> tuple[int, int, int]:
        return (1, self.side, self.side)

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("across", "down")

    def load(self, name: str) -> Examples:
        across = np.zeros((1, self.side, self.side), np.float32)
        across[:, ::2] = self.contrast
        return Examples(np.stack([across, across.transpose(0, 2, 1)]), np.array([0, self.labels - 1], np.int64))


def digits() -> Digits:
    found = task("digits")
    assert isinstance(found, Digits)
    return found


def test_digits_has_1079_train_359_validation_and_359_test_images_of_8_by_8() -> None:
    found = digits()
    assert [len(found.split(name)) for name in SPLITS] == [1079, 359, 359]
    for name in SPLITS:
        examples = found.split(name)
        assert examples.inputs.shape[1:] == found.image == (1, 8, 8)
        assert examples.inputs.dtype == np.float32
        assert examples.labels.dtype == np.int64
    assert found.classes == 10
    assert found.class_names[7] == "7"
    assert found.metric == "accuracy"


def test_the_digits_split_never_changes() -> None:
    found = digits()
    together = b"".join(found.indices(name).astype("<i8").tobytes() for name in SPLITS)
    assert hashlib.sha256(together).hexdigest() == "f8201f5b61aa00a03bb50bbfdce59d4b5ae72b98cb1512bfd1d891b06375810c"


def test_the_parts_of_digits_are_disjoint_and_hold_every_image_once() -> None:
    found = digits()
    together = np.concatenate([found.indices(name) for name in SPLITS])
    assert sorted(together) == list(range(1797))
    images = np.concatenate([found.split(name).inputs.reshape(-1, 64) for name in SPLITS])
    assert len(np.unique(images, axis=0)) == 1797


def test_every_part_of_digits_holds_the_classes_in_the_same_shares() -> None:
    found = digits()
    counts = {name: np.bincount(found.split(name).labels, minlength=10) for name in SPLITS}
    whole = sum(counts.values())
    for name, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        assert np.abs(counts[name] - share * whole).max() <= 1.0


def test_digits_have_about_zero_mean_and_unit_deviation() -> None:
    inputs = digits().split("train").inputs
    assert abs(float(inputs.mean())) < 0.01
    assert abs(float(inputs.std()) - 1) < 0.01


def test_digits_are_the_images_that_scikit_learn_brings() -> None:
    from sklearn.datasets import load_digits

    found, source = digits(), load_digits()
    where = found.indices("validation")
    np.testing.assert_allclose(found.split("validation").inputs[:, 0] * 6 + 4.9, source.images[where], atol=1e-5)
    np.testing.assert_array_equal(found.split("validation").labels, source.target[where])


def test_a_missing_scikit_learn_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match="task 'digits' needs scikit-learn") as caught:
        digits().split("train")
    assert caught.value.hint == "pip install scikit-learn"


def test_a_part_is_loaded_once_and_then_kept() -> None:
    found = digits()
    assert found.split("train") is found.split("train")


def test_a_misspelt_part_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="task 'digits' has no part 'valid'") as caught:
        digits().split("valid")
    assert caught.value.hint == "did you mean 'validation'?"


def test_the_list_of_tasks_gives_name_description_and_options_with_defaults() -> None:
    found = {item.name: item for item in tasks()}
    assert {"cifar10", "cifar100", "digits", "image-folder"} <= set(found)
    assert found["digits"].description == "1,797 handwritten digits, 8x8, from scikit-learn: no download."
    assert found["digits"].usage() == ""
    assert found["cifar10"].usage() == "data=... validation=5000"
    assert found["image-folder"].usage() == "data=... size=... grayscale=false validation=0.2 test=0.2 seed=0"
    for item in found.values():
        assert item.description.endswith(".")
        assert all(declared.help for declared in item.declared_options().values())


def test_the_default_augmentations_are_ones_that_keep_the_class() -> None:
    assert [item.name for item in task("digits").augmentation] == ["shift"]
    assert [item.name for item in task("cifar10").augmentation] == ["crop", "flip"]
    assert task("stripes", side=4).augmentation == ()


def test_a_task_of_another_package_has_typed_options() -> None:
    found = task("stripes", side=4, contrast=2)
    assert found.options == {"side": 4, "contrast": 2.0, "labels": 2}
    assert found.description == "Stripes along one of two directions."
    assert found.split("test").inputs.max() == 2.0


def test_key_value_texts_become_options_of_the_declared_types() -> None:
    parsed = parse_task_options(
        "image-folder", ["data=007", "size=32x48", "grayscale=true", "validation=0.1", "seed=3"]
    )
    assert parsed == {"data": "007", "size": (32, 48), "grayscale": True, "validation": 0.1, "seed": 3}
    assert parse_task_options("image-folder", ["size=[32, 48]"]) == {"size": (32, 48)}
    assert parse_task_options("image-folder", ["size=32"]) == {"size": (32,)}
    assert parse_task_options("cifar10", ["data=a=b", "validation=10"]) == {"data": "a=b", "validation": 10}


def test_a_table_of_a_configuration_file_names_the_task_and_its_options() -> None:
    found = task_from_mapping({"name": "image-folder", "data": "photos", "size": [32, 48]})
    assert found.name == "image-folder"
    assert found.options["size"] == (32, 48)


def test_a_data_folder_may_be_given_as_a_path() -> None:
    assert task("cifar10", data=Path("somewhere")).options["data"] == "somewhere"


BAD_OPTIONS: list[tuple[str, dict[str, object], str, str]] = [
    ("digit", {}, "unknown task 'digit'", "did you mean 'digits'?"),
    ("digits", {"seed": 1}, "task 'digits' has no option 'seed'", "there are no options of digits"),
    ("cifar10", {"dat": "x"}, "task 'cifar10' has no option 'dat'", "did you mean 'data'?"),
    ("cifar10", {"validation": 0}, "task 'cifar10': validation is 0", "it is at least 1"),
    (
        "cifar10",
        {"validation": "many"},
        "task 'cifar10': validation: expected an integer, got many",
        "options: data=... validation=5000",
    ),
    ("cifar10", {"validation": True}, "task 'cifar10': validation: expected an integer, got True", "options: data"),
    ("image-folder", {"size": (8, 8, 8)}, "task 'image-folder': size is 8x8x8", "height and width in pixels"),
    ("image-folder", {"size": (0, 8)}, "task 'image-folder': size is 0x8", "height and width in pixels"),
    ("image-folder", {"size": 2.5}, "task 'image-folder': size: expected", "options: data=... size=..."),
    ("image-folder", {"grayscale": 1}, "task 'image-folder': grayscale: expected true or false, got 1", "options"),
    ("image-folder", {"validation": 1.0}, "task 'image-folder': validation is 1.0", "it is a share between 0 and 1"),
    ("image-folder", {"test": float("nan")}, "task 'image-folder': test is nan", "it is a share between 0 and 1"),
    (
        "image-folder",
        {"validation": 0.5, "test": 0.5},
        "task 'image-folder': validation 0.5 and test 0.5 leave nothing to train on",
        "their sum is less than 1",
    ),
    ("image-folder", {"seed": -1}, "task 'image-folder': seed is -1", "it is from 0 to 2^63 - 1"),
    ("stripes", {}, "task 'stripes' needs the option 'side'", "it is an integer: pixels along a side"),
]


@pytest.mark.parametrize(("name", "options", "message", "hint"), BAD_OPTIONS)
def test_a_bad_option_gets_one_message_and_a_remedy(
    name: str, options: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        task(name, **options)
    assert caught.value.message.startswith(message)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint) or hint in caught.value.hint


BAD_TEXTS: list[tuple[str, list[str], str, str]] = [
    ("cifr10", [], "unknown task 'cifr10'", "did you mean 'cifar10'?"),
    ("cifar10", ["data"], "task 'cifar10': cannot read 'data'", "write key=value; options: data=... validation=5000"),
    ("digits", ["8x8"], "task 'digits': cannot read '8x8'", "write key=value; options: none"),
    ("cifar10", ["data=a", "data=b"], "task 'cifar10': 'data' is given twice", "give it once"),
    ("cifar10", ["validaton=3"], "task 'cifar10' has no option 'validaton'", "did you mean 'validation'?"),
    ("cifar10", ["validation=1e3"], "task 'cifar10': validation: expected an integer, got 1000.0", "options: data"),
    ("image-folder", ["size=large"], "task 'image-folder': size: expected an integer, got large", "options: data"),
    ("image-folder", ["validation=nan"], "task 'image-folder': validation: expected a number, got nan", "options:"),
]


@pytest.mark.parametrize(("name", "texts", "message", "hint"), BAD_TEXTS)
def test_a_bad_key_value_text_gets_one_message_and_a_remedy(
    name: str, texts: list[str], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_task_options(name, texts)
    assert caught.value.message == message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "[task]: there is no name"),
        ({"name": 3}, "[task]: name is 3"),
        ({"name": "digits", "size": 8}, "[task]: task 'digits' has no option 'size'"),
    ],
)
def test_a_bad_table_is_named_in_the_message(table: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        task_from_mapping(table, where="[task]")
    assert caught.value.message == message
    assert caught.value.hint


def test_a_task_whose_data_break_its_own_declaration_is_refused() -> None:
    with pytest.raises(DataError, match=r"task 'stripes': train has images \[1, 4, 4\] and labels up to 2") as caught:
        task("stripes", side=4, labels=3).split("train")
    assert caught.value.hint == "the task declares images [1, 4, 4] and 2 classes"


def test_a_name_cannot_be_registered_by_two_classes() -> None:
    with pytest.raises(UsageError, match="task 'digits' of .* is registered already by gensynth.synth.tasks.digits"):

        @register_task("digits")
        class Numbers(Stripes):
            """Another one."""

    assert type(task("digits")) is Digits


def test_pickling_a_task_carries_its_options_and_not_its_data() -> None:
    found = digits()
    found.split("train")
    text = pickle.dumps(found)
    assert len(text) < 500
    np.testing.assert_array_equal(pickle.loads(text).split("test").labels, found.split("test").labels)


def _labels_of(name: str, options: dict[str, OptionValue]) -> list[int]:
    return list(map(int, task(name, **options).split("validation").labels))


def test_a_fresh_process_makes_the_same_task_from_name_and_options() -> None:
    found = digits()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        labels = executor.submit(_labels_of, found.name, found.options).result()
    assert labels == list(found.split("validation").labels)


def test_other_packages_add_tasks_by_entry_point_and_a_broken_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "dots.py").write_text(
        textwrap.dedent(
            '''
            from gensynth.synth.tasks import Digits, register_task

            @register_task("dots")
            class Dots(Digits):
                """Digits under another name."""
            '''
        )
    )
    information = tmp_path / "dots-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: dots\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[gensynth.tasks]\ndots = dots\nbroken = no_such_module\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from gensynth.synth.tasks import task, tasks\n"
        "print(task('dots').description, 'dots' in [item.name for item in tasks()])\n"
        "print([name for name in ('torch', 'sklearn', 'PIL') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["Digits under another name. True", "[]"]
    assert "warning: gensynth.tasks plug-in 'broken' (no_such_module) failed" in done.stderr
