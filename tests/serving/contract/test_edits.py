"""Edits to arrays, seeds to codes: the checks that happen before anything is sent."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import tiny_editor
from hypothesis import given
from hypothesis import strategies as st

from serving.contract.edits import check_rows, edit_arrays, layer_strengths, resolve_class, resolve_edit
from serving.contract.latents import draw_latents
from serving.contract.manifest import Latent, Manifest, parse_manifest
from serving.contract.named_edit import NamedEdit
from serving.errors import InvalidEdit

MANIFEST = parse_manifest(json.dumps(tiny_editor.MANIFEST))
D, K, L = tiny_editor.D, tiny_editor.K, tiny_editor.L


def with_classes(default: list[int]) -> Manifest:
    raw = copy.deepcopy(tiny_editor.WITH_CLASSES)
    raw["generator"]["classes"]["default"] = default
    return parse_manifest(json.dumps(raw))


def rows(count: int = 3, edits: int = 2) -> dict[str, Any]:
    return {
        "z": np.zeros((count, D), np.float32),
        "direction": np.zeros((count, edits), np.int64),
        "alpha": np.zeros((count, edits, L), np.float32),
        "class_id": None,
    }


class TestSeeds:
    def test_each_row_is_the_reference_draw(self) -> None:
        z = draw_latents(MANIFEST.latent, 85, 3)
        assert z.dtype == np.float32
        for row in range(3):
            np.testing.assert_array_equal(z[row], np.random.RandomState(85 + row).randn(D).astype(np.float32))

    def test_truncated_normal_is_scipys_in_float32(self) -> None:
        """Both round their float64 to float32; a last bit may differ in 1 of 10^7 numbers."""
        truncnorm = pytest.importorskip("scipy.stats").truncnorm
        latent = Latent("z", D, L, "truncated_normal", 0.4)
        z = draw_latents(latent, 5, 2000)
        for row in range(2000):
            wanted = 0.4 * truncnorm.rvs(-2, 2, size=(1, D), random_state=np.random.RandomState(5 + row))
            np.testing.assert_array_max_ulp(z[row], wanted[0].astype(np.float32), maxulp=1)
        assert np.abs(z).max() <= 0.8

    @given(st.integers(0, 2**32 - 1))
    def test_every_seed_of_the_range_draws(self, seed: int) -> None:
        assert np.isfinite(draw_latents(MANIFEST.latent, seed)).all()

    @pytest.mark.parametrize(("seed", "count"), [(-1, 1), (2**32, 1), (2**32 - 1, 2), (0, 0)])
    def test_outside_is_refused(self, seed: int, count: int) -> None:
        with pytest.raises(InvalidEdit, match="must be"):
            draw_latents(MANIFEST.latent, seed, count)


class TestEdits:
    def test_a_name_that_the_served_model_does_not_know(self) -> None:
        hint = "after `latentclr name`, export again and restart the server, or serve with --poll"
        with pytest.raises(InvalidEdit) as caught:
            resolve_edit(MANIFEST, "smiel")
        assert str(caught.value).endswith(f"no named edit 'smiel': did you mean smile? (it has smile); {hint}")
        raw = {**tiny_editor.MANIFEST, "edits": {}}
        with pytest.raises(InvalidEdit) as caught:
            resolve_edit(parse_manifest(json.dumps(raw)), "smile")
        assert str(caught.value) == f"the served model has no named edit 'smile' (it has none); {hint}"

    def test_no_edit_is_one_with_strength_zero(self) -> None:
        direction, alpha = edit_arrays(MANIFEST, {}, None)
        assert direction.tolist() == [0]
        assert alpha.tolist() == [[0.0, 0.0]]

    def test_names_bring_their_layers_and_indices_reach_all(self) -> None:
        direction, alpha = edit_arrays(MANIFEST, {"smile": 4.0, 1: -2.0}, None)
        assert direction.tolist() == [2, 1]
        assert alpha.tolist() == [[0.0, 4.0], [-2.0, -2.0]]

    def test_the_number_of_edits_is_bounded_where_the_model_says_so(self) -> None:
        check_rows(MANIFEST, **rows(edits=1000))
        raw = copy.deepcopy(tiny_editor.MANIFEST)
        raw["directions"]["max_edits"] = 64
        bounded = parse_manifest(json.dumps(raw))
        check_rows(bounded, **rows(edits=64))
        with pytest.raises(InvalidEdit, match=r"^at most 64 edits can be applied together, got 65$"):
            check_rows(bounded, **rows(edits=65))

    def test_directions_act_where_they_were_trained_unless_somebody_says_otherwise(self) -> None:
        raw = copy.deepcopy(tiny_editor.MANIFEST)
        raw["directions"]["layers"] = [0]
        raw["edits"]["plain"] = {"direction": 0}
        fed = parse_manifest(json.dumps(raw))
        assert edit_arrays(fed, {1: 3.0, "plain": 2.0, "smile": 4.0}, None)[1].tolist() == [[3, 0], [2, 0], [0, 4]]
        assert edit_arrays(fed, {1: 3.0}, [1])[1].tolist() == [[0.0, 3.0]]
        assert edit_arrays(fed, {1: 3.0}, [0, 1])[1].tolist() == [[3.0, 3.0]]
        assert edit_arrays(fed, {1: [3.0, 1.0]}, None)[1].tolist() == [[3.0, 1.0]]

    def test_layers_restrict(self) -> None:
        assert edit_arrays(MANIFEST, {1: 3.0}, [0])[1].tolist() == [[3.0, 0.0]]

    def test_a_strength_for_each_layer(self) -> None:
        assert layer_strengths(MANIFEST, [1.0, 2.0], (), None).tolist() == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("edits", "layers", "message"),
        [
            ({3: 1.0}, None, r"direction must be in \[0, 3\), got 3"),
            ({-1: 1.0}, None, r"direction must be in \[0, 3\), got -1"),
            ({True: 1.0}, None, "direction must be an index"),
            ({"smlie": 1.0}, None, "did you mean smile"),
            ({0: float("nan")}, None, "alpha must be finite, got nan"),
            ({0: float("inf")}, None, "alpha must be finite, got inf"),
            ({0: [1.0]}, None, r"one number or 2 numbers .*got shape \(1,\)"),
            ({0: [1.0, 2.0, 3.0]}, None, r"got shape \(3,\)"),
            ({0: "much"}, None, "alpha must be an array of numbers"),
            ({0: 1.0}, [2], r"layers must be in \[0, 2\), got 2"),
            ({0: 1.0}, [], "reaches none of the layers"),
            ({"smile": 1.0}, [0], "reaches none of the layers"),
        ],
    )
    def test_bad_edits(self, edits: Any, layers: Any, message: str) -> None:
        with pytest.raises(InvalidEdit, match=message):
            edit_arrays(MANIFEST, edits, layers)

    def test_numpy_indices_are_indices(self) -> None:
        edit = resolve_edit(MANIFEST, np.int64(2))  # type: ignore[arg-type]
        assert edit == NamedEdit(2, alpha=MANIFEST.directions.alpha_range)

    def test_a_reversed_name_goes_against_its_direction(self) -> None:
        raw = copy.deepcopy(tiny_editor.MANIFEST)
        raw["edits"]["frown"] = {**raw["edits"]["smile"], "reverse": True}
        manifest = parse_manifest(json.dumps(raw))
        direction, alpha = edit_arrays(manifest, {"smile": 1.0, "frown": [9.0, 2.0], 0: 1.0}, None)
        assert direction.tolist() == [2, 2, 0]
        np.testing.assert_array_equal(alpha, np.array([[0, 1], [0, -2], [1, 1]], np.float32))


class TestClasses:
    def test_by_number_name_and_default(self) -> None:
        manifest = with_classes([1])
        assert resolve_class(manifest, 0, None) == 0
        assert resolve_class(manifest, None, "goldfish") == 1
        assert resolve_class(manifest, None, None) == 1
        assert resolve_class(MANIFEST, None, None) is None

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((2, None), r"class_id must be in \[0, 2\), got 2"),
            ((None, "goldfsh"), "did you mean Goldfish"),
            ((0, "tench"), "not both"),
            ((None, None), "needs a class_id"),
        ],
    )
    def test_bad_classes(self, arguments: Any, message: str) -> None:
        with pytest.raises(InvalidEdit, match=message):
            resolve_class(with_classes([]), *arguments)

    def test_a_generator_without_classes(self) -> None:
        with pytest.raises(InvalidEdit, match="has no classes"):
            resolve_class(MANIFEST, 1, None)


class TestRows:
    def test_types_and_shapes_for_the_wire(self) -> None:
        request = {**rows(), "class_id": [0, 1, 1]}
        arrays = check_rows(with_classes([]), **request)
        assert {name: (array.dtype.str, array.shape) for name, array in arrays.items()} == {
            "z": ("<f4", (3, D)),
            "direction": ("<i8", (3, 2)),
            "alpha": ("<f4", (3, 2, L)),
            "class_id": ("<i8", (3, 1)),
        }

    @pytest.mark.parametrize(
        ("name", "position", "value", "message"),
        [
            ("direction", (2, 1), 3, r"^row 2: direction must be in \[0, 3\), got 3$"),
            ("direction", (1, 0), -1, r"^row 1: direction must be in \[0, 3\), got -1$"),
            ("alpha", (1, 0, 1), np.nan, "^row 1: alpha must be finite, got nan$"),
            ("alpha", (0, 0, 0), -np.inf, "^row 0: alpha must be finite, got -inf$"),
            ("z", (2, 3), np.nan, "^row 2: z must be finite, got nan$"),
        ],
    )
    def test_the_bad_row_is_named(self, name: str, position: Any, value: Any, message: str) -> None:
        request = rows()
        request[name][position] = value
        with pytest.raises(InvalidEdit, match=message):
            check_rows(MANIFEST, **request)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("z", np.zeros((3, D + 1)), r"z must be of shape \[N, 4\] or \[4\], got \[3, 5\]"),
            ("z", np.zeros((0, D)), "z must be of shape"),
            ("z", "text", "z must be an array of numbers"),
            ("z", np.full((3, D), 1e300), "row 0: z must be finite"),
            ("direction", np.zeros((3, 0), int), "with M >= 1"),
            ("direction", np.zeros((2, 2), int), r"\[3, M\]"),
            ("direction", np.zeros((3, 2)), "must hold integers"),
            ("alpha", np.zeros((3, 2, L + 1)), r"alpha must be of shape \[3, 2, 2\], got \[3, 2, 3\]"),
            ("alpha", np.zeros((3, 2)), "alpha must be of shape"),
            ("class_id", [0, 0, 0], "has no classes"),
        ],
    )
    def test_bad_shapes(self, name: str, value: Any, message: str) -> None:
        with pytest.raises(InvalidEdit, match=message):
            check_rows(MANIFEST, **{**rows(), name: value})
