from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from serving.contract.certificate import GATES, CertificateError, Comparison, Gate, edit_cosine, ssim

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(60, 200, (4, 24, 20, 3), dtype=np.uint8)


def test_identical_pictures_pass_every_gate():
    comparison = Comparison()
    comparison.add(PICTURES, PICTURES.copy(), [[0], [1], [2], [3]])
    for gate in GATES.values():
        certificate = comparison.certificate("onnxruntime", "fp32", gate)
        assert certificate.passed and certificate.images == 4
        assert (certificate.worst_step, certificate.psnr_db, certificate.ssim) == (0, None, 1.0)
    assert "identical" in str(certificate) and "holds certified" in str(certificate)


def test_one_bad_picture_among_good_ones_is_found_with_its_directions():
    drawn = PICTURES.copy()
    drawn[2] += 20
    comparison = Comparison()
    comparison.add(PICTURES, drawn, [[0], [1], [7, 3], [3]])
    measured = comparison.measured()
    assert measured["worst_step"] == 20 and measured["mean_step"] == 20
    assert measured["psnr_db"] == pytest.approx(20 * math.log10(255 / 20))
    assert comparison.failing(GATES["certified"]) == [3, 7]
    single = Comparison()
    single.add(PICTURES[:3], PICTURES[:3] + np.uint8(20), [[1, 2], [2], []])
    assert single.failing(GATES["certified"]) == [2]
    assert GATES["certified"].misses(measured)[:2] == [
        "mean step 20 instead of at most 0.5", "PSNR 22.11 instead of at least 40",
    ]  # fmt: skip
    assert not comparison.certificate("x", "int8", GATES["certified"]).passed


def test_the_step_that_999_of_1000_values_do_not_exceed():
    expected = np.full((1, 100, 100, 3), 100, np.uint8)
    drawn = expected.copy()
    drawn.reshape(-1)[:29] = 150  # less than 0.1 % of 30,000 values
    comparison = Comparison()
    comparison.add(expected, drawn, [[0]])
    assert comparison.measured()["p999_step"] == 0
    drawn.reshape(-1)[:31] = 150
    comparison = Comparison()
    comparison.add(expected, drawn, [[0]])
    assert comparison.measured()["p999_step"] == 50


def test_ssim_is_the_papers():
    """Against scipy's Gaussian filter, cut to the positions at which the whole window lies inside."""
    x, y = PICTURES[0], np.clip(PICTURES[0] + RNG.normal(0, 12, PICTURES[0].shape), 0, 255).astype(np.uint8)

    def blur(image):
        filtered = gaussian_filter(image, (1.5, 1.5, 0), truncate=5 / 1.5, mode="constant")
        return filtered[5:-5, 5:-5]

    a, b = x.astype(float), y.astype(float)
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    c1, c2 = 6.5025, 58.5225
    expected = ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()
    assert ssim(x, y) == pytest.approx(expected, abs=1e-9)
    assert ssim(x[:4, :4], y[:4, :4]) < 1  # smaller than the window


def test_fidelity_is_of_the_edit_not_of_the_picture():
    unedited = PICTURES[0]
    edited = unedited.copy()
    edited[:12] += 10
    assert edit_cosine(edited, unedited, edited + 3, unedited + 3) == pytest.approx(1)  # both brighter: the same edit
    assert edit_cosine(edited, unedited, unedited, unedited) == 0  # the engine does not edit at all
    other = unedited.copy()
    other[12:] += 10
    assert edit_cosine(edited, unedited, other, unedited) == pytest.approx(0)
    slight = unedited.copy()
    slight[0, 0, 0] += 1
    assert edit_cosine(slight, unedited, slight, unedited) is None


def test_the_worst_percent_of_the_edits_counts():
    unedited = np.full((200, 8, 8, 3), 100, np.uint8)
    edited = unedited.copy()
    edited[:, :4] += 10
    drawn = edited.copy()
    drawn[:2] = unedited[:2]  # one percent does nothing
    comparison = Comparison()
    comparison.add(edited, drawn, [[i] for i in range(200)], (unedited, unedited))
    assert comparison.measured()["edit_fidelity"] == pytest.approx(1)
    drawn[2] = unedited[2]
    comparison = Comparison()
    comparison.add(edited, drawn, [[i] for i in range(200)], (unedited, unedited))
    assert comparison.measured()["edit_fidelity"] == 0
    assert comparison.failing(Gate("faithful", edit_fidelity=0.9)) == [0, 1, 2]


def test_what_cannot_be_mended_any_more_is_hopeless():
    unedited = np.full((3, 8, 8, 3), 100, np.uint8)
    edited = unedited + np.uint8(10)
    faithful, all_of_it = Gate("faithful", edit_fidelity=0.9), Gate("all", mean_step=1, edit_fidelity=0.9)
    comparison = Comparison()
    comparison.add(edited, unedited, [[0]] * 3, (unedited, unedited))  # edits that do nothing
    assert not comparison.is_hopeless(faithful, 300) and comparison.is_hopeless(faithful, 299)
    assert comparison.is_hopeless(all_of_it, 300)


@pytest.mark.parametrize(
    "text, part",
    [
        ("good", "exact, certified or numbers such as"),
        ("psnr=40,blur=3", "quality knows worst, mean, psnr, ssim, fidelity, got 'blur'"),
        ("psnr=lots", "quality psnr must be a number in [0, 100], got 'lots'"),
        ("ssim=nan", "quality ssim must be a number in [-1, 1], got 'nan'"),
        ("mean=-1", "quality mean must be a number in [0, 255], got '-1'"),
        ("psnr=40,psnr=1", "quality psnr can be given once, got 'psnr=40,psnr=1'"),
        ("fidelity=0.9", "quality fidelity=0.9 needs another number beside it"),
    ],
)
def test_a_gate_that_is_not_understood(text, part):
    with pytest.raises(CertificateError) as caught:
        Gate.parse(text)
    assert part in str(caught.value)


def test_a_gate_of_numbers():
    gate = Gate.parse("psnr=38,worst=8")
    assert gate == Gate("psnr=38,worst=8", worst_step=8, psnr_db=38)
    assert gate.misses({"psnr_db": float("nan"), "worst_step": 8}) == ["PSNR nan instead of at least 38"]


def test_other_shapes_and_nothing_at_all():
    comparison = Comparison()
    with pytest.raises(CertificateError, match="no pictures were compared"):
        comparison.measured()
    with pytest.raises(CertificateError, match="drawn: got uint8"):
        comparison.add(PICTURES, PICTURES[:2], [[0]] * 4)
