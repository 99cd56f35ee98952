"""Measures of points that were turned, opened and moved by known amounts, and maps that cut out what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latentclr.scores import landmarks

MIDDLE = np.array([96.0, 96.0, 0.0])


def face():
    """A face of 468 points seen from the front, in a picture of 192 pixels; what is not measured lies on a disc."""
    rng = np.random.default_rng(0)
    points = np.zeros((landmarks.COUNT, 3))
    points[:, :2] = rng.uniform(-40, 40, (landmarks.COUNT, 2))
    placed = {
        234: (-60, 0, 10), 454: (60, 0, 10), 10: (0, -60, 0), 2: (0, 25, 0), 168: (0, -20, 0), 33: (-45, -20, 0),
        133: (-15, -20, 0), 263: (45, -20, 0), 362: (15, -20, 0), 159: (-30, -24, 0), 145: (-30, -16, 0),
        386: (30, -24, 0), 374: (30, -16, 0), 105: (-30, -40, 0), 334: (30, -40, 0), 61: (-25, 45, 0),
        291: (25, 45, 0), 13: (0, 43, 0), 14: (0, 47, 0),
    }  # fmt: skip
    for index, place in placed.items():
        points[index] = place
    return points + MIDDLE


def turned(points, yaw=0.0, pitch=0.0, roll=0.0):
    """Turn about the picture's middle by degrees, one axis; positive as the module's table says."""
    a, b, c = (math.radians(angle) for angle in (yaw, pitch, roll))
    about_y = np.array([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), math.sin(b)], [0, -math.sin(b), math.cos(b)]])
    about_z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return (points - MIDDLE) @ (about_z @ about_x @ about_y).T + MIDDLE


def measured(points):
    return dict(zip(landmarks.MEASURES, landmarks.measure(points[None], 192)[0], strict=True))


def test_formulas_from_the_front():
    found = measured(face())
    assert found["yaw"] == found["pitch"] == found["roll"] == 0
    assert found["mouth_open"] == pytest.approx(4 / 45) and found["mouth_width"] == pytest.approx(50 / 90)
    assert found["eyes_open"] == pytest.approx(8 / 45) and found["brow_height"] == pytest.approx(16 / 45)


@pytest.mark.parametrize(("axis", "angle"), [("yaw", 30), ("yaw", -20), ("pitch", 15), ("pitch", -25), ("roll", 10)])
def test_a_turned_head_keeps_its_face(axis, angle):
    straight, found = measured(face()), measured(turned(face(), **{axis: angle}))
    assert found.pop(axis) == pytest.approx(angle)
    straight.pop(axis)
    assert found == pytest.approx(straight, abs=1e-9)


def test_signs():
    """The nose is nearest to the camera (z is smallest there), so it shows which way the face looks."""
    nose = np.array([[96.0, 96.0, -30.0]])
    assert turned(nose, yaw=30)[0, 0] > 96, "a face with yaw > 0 looks to the right of the picture"
    assert turned(nose, pitch=30)[0, 1] < 96, "a face with pitch > 0 looks up"
    assert turned(np.array([[140.0, 96.0, 0.0]]), roll=30)[0, 1] > 96, "clockwise: what lies right goes down"
    wide = face()
    wide[[61, 291]] += [[-5, 0, 0], [5, 0, 0]]
    wide[[105, 334], 1] -= 5
    wide[[13, 159, 386], 1] -= 3
    for name in ("mouth_width", "mouth_open", "eyes_open", "brow_height"):
        assert measured(wide)[name] > measured(face())[name]
    assert measured((face() - 96) * 1.5 + 96)["face_size"] == pytest.approx(1.5 * measured(face())["face_size"])


def placed(maps, size):
    """The corners of what is cut out, where they lie in the picture: left and right above, left and right below."""
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]])
    return corners @ maps[0].T


def test_the_square_around_a_face_is_upright_to_the_face():
    points = turned(face(), roll=20)
    maps = landmarks.around_face(points[None], 192)
    corners = placed(maps, 192)
    edge = corners[1] - corners[0]
    assert math.degrees(math.atan2(edge[1], edge[0])) == pytest.approx(20)
    upright = face()[:, :2]
    longest = (upright.max(0) - upright.min(0)).max()
    assert np.linalg.norm(edge) == pytest.approx(1.5 * longest)
    # Cut out, the face is straight and in the middle; moved back, it is where it was.
    inside = (points[:, :2] - maps[0, :, 2]) @ np.linalg.inv(maps[0, :, :2]).T
    assert (inside.max(0) + inside.min(0)) / 2 == pytest.approx([96, 96])
    cut = np.concatenate([inside, points[:, 2:] / (1.5 * longest / 192)], axis=1)
    assert measured(cut)["roll"] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(landmarks.mapped_back(cut[None], maps)[0], points, rtol=0, atol=1e-9)


def test_the_chip_for_expressions_holds_brows_and_chin():
    for points in (face(), turned(face(), roll=-15), face() * 0.5):
        maps = landmarks.expression_chip(points[None], 64)
        inside = (points[:, :2] - maps[0, :, 2]) @ np.linalg.inv(maps[0, :, :2]).T
        eyes = inside[[33, 133, 263, 362]].mean(0)
        assert eyes == pytest.approx([32, 32 - 64 * 0.5 / 2.7])
        assert inside[362, 1] == pytest.approx(inside[133, 1])
        assert ((inside[[105, 334, 61, 291, 2]] > 0) & (inside[[105, 334, 61, 291, 2]] < 64)).all()


def test_dlib_chips_are_least_squares():
    """Points in dlib's own layout come back exactly; others as numpy's least squares puts them."""
    rng = np.random.default_rng(1)
    points = np.stack([turned(face(), yaw=25, roll=12), turned(face(), pitch=20) * 0.7])
    layout = (landmarks._DLIB_POINTS + 0.2) / 1.4 * 128
    points[0, list(landmarks._DLIB_IN_MESH), :2] = layout @ np.array([[0.6, 0.8], [-0.8, 0.6]]) * 1.7 + [5, -9]
    points[1, list(landmarks._DLIB_IN_MESH), :2] += rng.normal(size=(5, 2))
    maps = landmarks.dlib_chip(points, 128)
    exact = layout @ maps[0, :, :2].T + maps[0, :, 2]
    np.testing.assert_allclose(exact, points[0, list(landmarks._DLIB_IN_MESH), :2], rtol=0, atol=1e-9)
    for numbers, face_points in zip(maps, points, strict=True):
        rows, wanted = [], []
        for (x, y), (u, v) in zip(layout, face_points[list(landmarks._DLIB_IN_MESH), :2], strict=True):
            rows += [[x, -y, 1, 0], [y, x, 0, 1]]
            wanted += [u, v]
        a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
        np.testing.assert_allclose(numbers, [[a, -b, tx], [b, a, ty]], rtol=0, atol=1e-9)
