"""Named edits: the file, the commands `name` and `names`, `gen edits=...`."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from latentclr.catalog import (
    NamedEdit,
    check_name,
    chosen_edits,
    fitting_edits,
    published_edits,
    read_catalog,
    readable_edits,
    write_catalog,
)
from latentclr.commands.names import parse_alpha
from latentclr.errors import CheckpointError, ConfigError

SMILE = NamedEdit(28, (4, 5), (-7.0, 7.0), 'closed mouth: "yes", #1')
OLD = NamedEdit(2, (), (-0.5, 6.0))


def test_what_is_written_is_read(tmp_path):
    edits = {"smile": SMILE, "Lächeln groß": OLD, "yes": OLD, "off": SMILE}
    write_catalog(tmp_path, edits)
    assert read_catalog(tmp_path) == edits
    assert (tmp_path / "catalog.yaml").read_text().splitlines()[0] == (
        "smile: {direction: 28, layers: [4, 5], alpha: [-7, 7], note: 'closed mouth: \"yes\", #1'}"
    )
    assert read_catalog(tmp_path / "nowhere") == {}


def test_a_reversed_name_is_written_and_read(tmp_path):
    edits = {"frown": NamedEdit(2, reverse=True), "smile": NamedEdit(2)}
    write_catalog(tmp_path, edits)
    assert read_catalog(tmp_path) == edits
    reversed_line, plain_line = (tmp_path / "catalog.yaml").read_text().splitlines()
    assert reversed_line.endswith("note: '', reverse: true}")
    assert "reverse" not in plain_line
    (tmp_path / "catalog.yaml").write_text("frown: {direction: 2, reverse: maybe}\n")
    assert readable_edits(tmp_path)[0] == {}


def test_gen_draws_a_reversed_name_the_other_way(run, invoke):
    (run / "catalog.yaml").write_text("smile: {direction: 3}\nfrown: {direction: 3, reverse: true}\n")

    def drawn(*words):
        result = invoke("gen", run, "n_samples=1", "image_size=null", f"output_dir={run / 'x'}", *words)
        assert result.exit_code == 0, result.output
        with Image.open(run / "x" / "sample_0.png") as image:
            return np.asarray(image.convert("RGB"))[-16:, -36:]  # two tiles

    for smile, frown in (("-3", "3"), ("3", "-3")):
        assert np.array_equal(drawn(f"edits={{smile: {smile}}}")[:, -16:], drawn(f"edits={{frown: {frown}}}")[:, -16:])
    assert not np.array_equal(drawn("edits={smile: 3}"), drawn("edits={frown: 3}"))


def test_comments_stay_when_a_name_is_added(tmp_path):
    (tmp_path / "catalog.yaml").write_text("# mine\nold: {direction: 2}  # why")
    assert read_catalog(tmp_path) == {"old": NamedEdit(2, (), (-6.0, 6.0))}
    write_catalog(tmp_path, {"old": NamedEdit(2), "smile": SMILE})
    text = (tmp_path / "catalog.yaml").read_text()
    assert text.startswith("# mine\nold: {direction: 2}  # why\nsmile: {direction: 28,")
    write_catalog(tmp_path, {"old": NamedEdit(2)})
    assert read_catalog(tmp_path) == {"old": NamedEdit(2)}


def test_a_flow_table_takes_no_line_but_keeps_its_edits(tmp_path):
    (tmp_path / "catalog.yaml").write_text("{old: {direction: 2}}\n")
    write_catalog(tmp_path, {"old": NamedEdit(2), "smile": SMILE})
    assert read_catalog(tmp_path) == {"old": NamedEdit(2), "smile": SMILE}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- smile\n", "must be a table"),
        ("smile: 3\n", "smile must be like"),
        ("smile: {layers: [1]}\n", "smile must be like"),
        ("smile: {direction: 1.5}\n", "smile must be like"),
        ("smile: {direction: true}\n", "smile must be like"),
        ("smile: {direction: -1}\n", "smile must be like"),
        ("smile: {direction: 1, layers: 4}\n", "smile must be like"),
        ("smile: {direction: 1, layers: [a]}\n", "smile must be like"),
        ("smile: {direction: 1, alpha: [7, -7]}\n", "smile must be like"),
        ("smile: {direction: 1, alpha: [-.inf, 7]}\n", "smile must be like"),
        ("smile: {direction: 1, alpha: 7}\n", "smile must be like"),
        ("smile: {direction: 1, alpha: '19'}\n", "smile must be like"),
        ("smile: {direction: 1, alpha: {1: 0, 9: 0}}\n", "smile must be like"),
        ("smile: {direction: 1, alpha: [false, true]}\n", "smile must be like"),
        ("smile: {direction: 1, alpha: ['-7', '7']}\n", "smile must be like"),
        ("smile: {direction: 1, layers: {4: 0}}\n", "smile must be like"),
        ("3: {direction: 1}\n", "begin with a letter, got '3'"),
        ("a/b: {direction: 1}\n", "begin with a letter"),
        ("smile: {direction: 1\n", "is not YAML, line 2"),
        ("smile: !!python/object/apply:os.system ['touch executed']\n", "is not YAML"),
        ("\xff", "is not UTF-8"),
        ("#" * 1_100_000, "at most 1000000 bytes"),
    ],
)
def test_a_file_that_is_no_catalog_is_refused_and_stays(tmp_path, text, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "catalog.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_catalog(tmp_path)
    assert "catalog.yaml" in str(caught.value)
    with pytest.raises(CheckpointError):
        write_catalog(tmp_path, {"smile": SMILE})
    assert path.read_bytes() == text.encode("latin-1")
    assert [p.name for p in tmp_path.iterdir()] == ["catalog.yaml"]


def test_a_note_is_a_line_that_no_terminal_obeys(run, invoke):
    (run / "catalog.yaml").write_text('smile: {direction: 2, note: "mouth\\n\\e[2J \\u202eonly"}\n')
    assert read_catalog(run)["smile"].note == "mouth [2J only"
    assert "\x1b" not in invoke("names", run).output


def test_a_bad_entry_does_not_take_the_others_along(run, invoke):
    (run / "catalog.yaml").write_text("3rd: {direction: 1}\nsmile: {direction: 2}\n")
    result = invoke("names", run)
    assert result.exit_code == 0
    assert "begin with a letter, got '3rd': left out" in result.stderr
    assert "smile" in result.stdout
    result = invoke("gen", run, "n_samples=1", "image_size=null", "edits=smile")
    assert result.exit_code == 0, result.output
    assert "got '3rd': left out" in result.stderr


def test_a_folder_in_its_place(tmp_path):
    (tmp_path / "catalog.yaml").mkdir()
    with pytest.raises(CheckpointError, match="cannot read"):
        read_catalog(tmp_path)


@pytest.mark.parametrize("name", ["", " a", "a ", "3rd", "-a", "a" * 41, "a\n", "a=b", "a.b", "a\x00"])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match="a name must be"):
        check_name(name)


@pytest.mark.parametrize("name", ["None", "none", "null", "NULL", "true", "False", "nan", "Inf", "all"])
def test_names_that_mean_something_else(name, run, invoke, refused):
    """`gen edits=NAME` could never ask for them; one that an older version took can be taken away."""
    line = refused(invoke("name", run, name, "--direction", "1"))
    assert f"{name} cannot be a name, as it means something else in edits=" in line
    assert not (run / "catalog.yaml").exists()
    (run / "catalog.yaml").write_text(f"'{name}': {{direction: 1}}\nsmile: {{direction: 2}}\n")
    edits, problems = readable_edits(run)
    assert list(edits) == ["smile"]
    assert f"{name} cannot be a name" in problems[0]
    assert invoke("name", run, name, "--remove").output == f"removed {name}\n"
    assert (run / "catalog.yaml").read_text() == "smile: {direction: 2}\n"


def test_names_near_those_are_names():
    for name in ("nonesuch", "on", "off", "yes", "alluring", "all over", "nano", "infant"):
        assert check_name(name) == name


def test_names_are_composed():
    assert check_name("e\u0301te\u0301") == "\u00e9t\u00e9"


def test_what_does_not_fit_is_reported():
    edits = {"smile": SMILE, "grass": NamedEdit(1, (7, 15, 16)), "far": NamedEdit(0, (16, 17)), "old": OLD}
    good, problems = fitting_edits(edits, 28, 16)
    assert good == {"grass": NamedEdit(1, (7, 15)), "old": OLD}
    assert problems == [
        "smile: direction must be in [0, 28), got 28: left out",
        "grass: this generator has the layers 0 to 15, not [16]: dropped",
        "far: this generator has the layers 0 to 15, not [16, 17]: left out",
    ]
    assert fitting_edits(edits, 100, None) == (edits, [])
    good, problems = fitting_edits({"old": OLD, "grass": NamedEdit(1, (7,))}, 28, 16, feed_layers=[3, 2])
    assert [edit.layers for edit in good.values()] == [
        (2, 3),
        (7,),
    ]  # what the run was trained on, where nothing is said


def test_published_names():
    ffhq, reason = published_edits("ffhq", 100)
    assert (len(ffhq), reason) == (10, "")
    assert ffhq["smile"] == NamedEdit(28, (4, 5), (-7.0, 7.0), ffhq["smile"].note)
    assert "origin" in ffhq["smile"].note
    counts = {name: len(published_edits(name, 100)[0]) for name in ("car", "cat", "church", "bedrooms", "horse")}
    assert counts == {"car": 7, "cat": 3, "church": 4, "bedrooms": 3, "horse": 0}
    assert published_edits("horse", 4) == ({}, "")
    edits, reason = published_edits("car", 32)
    assert edits == {}
    assert "belong to their checkpoint with K = 100; this one has 32" in reason
    car, problems = fitting_edits(published_edits("car", 100)[0], 100, 16)
    assert problems == ["add_grass: this generator has the layers 0 to 15, not [16]: dropped"]
    assert car["add_grass"].layers == tuple(range(7, 16))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("all", {"smile": None, "old": None}),
        ("old", {"old": None}),
        (["old", "smile"], {"old": None, "smile": None}),
        ({"smile": 3, "old": -2.5}, {"smile": 3.0, "old": -2.5}),
        ({7: 1}, {"7": 1.0}),
        ([3], {"3": None}),
    ],
)
def test_edits_asked_for(asked, expected):
    chosen = chosen_edits(asked, {"smile": SMILE, "old": OLD}, 32)
    assert {name: strength for name, (_, strength) in chosen.items()} == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("smyle", "did you mean 'smile'"),
        (["smile", "nose"], r"names no edit 'nose' \(names: smile, old\)"),
        ({"smile": "x"}, "strength of smile must be a finite number, got x"),
        ({"smile": None}, "got None"),
        ({"smile": True}, "got True"),
        ({"smile": [1, 2]}, r"got \[1, 2\]"),
        ({"smile": {"low": 1}}, "got {'low': 1}"),
        ({"smile": float("nan")}, "got nan"),
        ([], "edits must be all, names"),
        ({}, "edits must be"),
        (3.5, "edits must be"),
        ([True], "edits must be"),
        ([32], "no edit 32"),
    ],
)
def test_edits_that_cannot_be(asked, message):
    with pytest.raises(ConfigError, match=message):
        chosen_edits(asked, {"smile": SMILE, "old": OLD}, 32)


def test_parse_alpha():
    assert parse_alpha("-7..7") == (-7.0, 7.0)
    assert parse_alpha("0.5..1e1") == (0.5, 10.0)
    for text in ("", "7", "7..", "7..-7", "-7,7", "nan..3", "-inf..3", "1..2..3"):
        with pytest.raises(ConfigError, match=r"--alpha must be LOW\.\.HIGH"):
            parse_alpha(text)


def test_name_and_names(run, invoke, refused):
    assert "names no edits; give one a name" in invoke("names", run).output
    result = invoke("name", run, "smile", "--direction", "3", "--alpha", "-7..7", "--note", "mouth\nonly")
    assert result.output == "named smile: direction 3, all layers, alpha -7..7\n"
    moved = ("name", run, "smile", "--direction", "2", "--layers", "0")
    assert "smile is direction 3, all layers, alpha -7..7; --move gives the name to direction 2" in refused(
        invoke(*moved)
    )
    assert "moved smile: direction 2, layers 0" in invoke(*moved, "--move").output
    assert "replaced smile" in invoke(*moved).output
    assert invoke("name", run / "last.safetensors", "turned head", "--direction", "0").exit_code == 0
    assert [line.split("  ")[0] for line in invoke("names", run).output.splitlines()] == [
        "name",
        "smile",
        "turned head",
    ]
    assert read_catalog(run) == {
        "smile": NamedEdit(2, (0,), (-6.0, 6.0)),  # twice the strengths of training
        "turned head": NamedEdit(0, (), (-6.0, 6.0)),
    }
    assert "replaced smile: direction 2 reversed, all" in invoke(*moved[:5], "--reverse").output
    assert "smile        2 reversed  all" in invoke("names", run).output
    assert invoke("name", run, "smile", "--remove").output == "removed smile\n"
    assert list(read_catalog(run)) == ["turned head"]
    before = (run / "catalog.yaml").read_bytes()
    for words, message in (
        (["old", "--direction", "4"], "old: direction must be in [0, 4), got 4"),
        (["old", "--direction", "1", "--layers", "0-1"], "old: this generator has the layers 0 to 0, not [1]"),
        (["old", "--direction", "1", "--alpha", "3"], "--alpha must be LOW..HIGH"),
        (["3", "--direction", "1"], "a name must be"),
        (["old"], "expected --direction N, or --remove"),
        (["old", "--remove"], "names no edit 'old'"),
        (["turned head", "--remove", "--direction", "1"], "--remove takes no other option"),
    ):
        assert message in refused(invoke("name", run, *words))
    assert "no run folder" in refused(invoke("names", run / "nowhere"))
    assert (run / "catalog.yaml").read_bytes() == before


def test_a_broken_entry_of_others_is_not_lost(run, invoke):
    (run / "catalog.yaml").write_text("gone: {direction: 99}\n")
    result = invoke("names", run)
    assert "gone: direction must be in [0, 4), got 99: left out" in result.stderr
    assert invoke("name", run, "smile", "--direction", "1").exit_code == 0
    assert list(read_catalog(run)) == ["gone", "smile"]


@pytest.mark.slow
def test_six_at_once_are_all_kept(run, start):
    running = [start("-m", "latentclr", "name", run, f"edit {n}", "--direction", "1") for n in range(6)]
    for process in running:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    assert sorted(read_catalog(run)) == [f"edit {n}" for n in range(6)]


def size(path):
    with Image.open(path) as image:
        return image.size


def test_gen_draws_named_edits(run, invoke, refused):
    (run / "catalog.yaml").write_text(
        "smile: {direction: 3, alpha: [-4, 4]}\nold: {direction: 1, alpha: [-4, 4]}\n"
        "wide: {direction: 0, alpha: [0, 9]}\ngone: {direction: 77}\n"
    )
    words = ("gen", run, "n_samples=1", "image_size=null")
    result = invoke(*words, "edits=[smile,old]")
    assert result.exit_code == 0, result.output
    assert "gone: direction must be in [0, 4), got 77: left out" in result.stderr
    # The same rows as by number, straight and not step by step: what is served.
    with Image.open(run / "gen" / "sample_0.png") as image:
        named = np.asarray(image.convert("RGB"))
    result = invoke(*words, "n_dirs=[3,1]", "alphas=[-4,-2,2,4]", "iterative=false", f"output_dir={run / 'by'}")
    assert result.exit_code == 0, result.output
    with Image.open(run / "by" / "sample_0.png") as image:
        numbered = np.asarray(image.convert("RGB"))
    assert np.array_equal(named[-36:, -90:], numbered[-36:, -90:])
    for edits, columns in (("all", 5), ("[smile,wide]", 5), ("'{smile: 3, old: -2}'", 4), ("{wide: 3, 2: 1}", 4),
                           ("smile", 5), ("{smile: 3}", 2)):  # fmt: skip
        result = invoke(*words, f"edits={edits.strip(chr(39))}", "walk=gif", f"output_dir={run / 'x'}")
        assert result.exit_code == 0, result.output
        assert size(run / "x" / "sample_0.png")[0] >= columns * 18
        with Image.open(run / "x" / "walk_0.gif") as image:
            assert image.n_frames > 10
    assert "did you mean 'smile'" in refused(invoke(*words, "edits=smyle"))
    assert "the strength of smile must be a finite number, got high" in refused(invoke(*words, "edits={smile: high}"))
    assert "got 77: left out" in refused(invoke(*words, "edits=gone"))


def test_gen_help_names_the_option(invoke):
    assert "edits=" in invoke("gen", "--help").output
