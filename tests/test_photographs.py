"""Where the images of Section 4 come from: sets as class folders, one sentence for what is none."""

import shutil
import zipfile
from pathlib import Path

import pytest
from made_up import noisy_picture

from dcnas.data import photographs as sets
from dcnas.data.photographs import identity_of, photographs, set_named
from dcnas.errors import InputError

pytestmark = pytest.mark.usefixtures("downloads")
CLASSES = ["n03", "n01", "n02"]  # in the order of the study's list, not of the alphabet


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A made-up Tiny ImageNet as its zip unpacks: three classes of 15 + 5 images, dark to bright."""
    monkeypatch.setattr(sets, "tiny_classes", lambda: CLASSES)
    root, lines = tmp_path / "tiny", []
    for c, name in enumerate(sorted(CLASSES)):
        for n in range(15):
            noisy_picture(root / "train" / name / "images" / f"{name}_{n}.JPEG", 50 + 80 * c, n)
        for n in range(3 * 5)[c::3]:
            noisy_picture(root / "val" / "images" / f"val_{n}.JPEG", 50 + 80 * c, 100 + n)
            lines.append(f"val_{n}.JPEG\t{name}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    monkeypatch.setenv("DCNAS_TINY_IMAGENET", str(root))
    return root


def names(data: sets.Photographs) -> list[tuple[str, int, bool | None]]:
    return [(file.path.name, file.label, file.test) for file in data.files]


def test_tiny_imagenet_keeps_the_last_fifth_and_val_for_testing(tiny):
    data = photographs("tiny-imagenet")
    assert data.classes == tuple(CLASSES) and len(data.files) == 60
    for label, name in enumerate(CLASSES):
        tested = [file.path.name for file in data.files if file.label == label and file.test]
        assert tested[:3] == [f"{name}_{n}.JPEG" for n in range(12, 15)]  # by number, not by letters
        assert len(tested) == 8 and all(other.startswith("val_") for other in tested[3:])


def test_tiny_imagenet_with_class_folders_is_the_same_set(tiny, tmp_path, monkeypatch):
    first = names(photographs("tiny-imagenet"))
    for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines():
        image, name = line.split("\t")[:2]
        (tiny / "val" / name).mkdir(exist_ok=True)
        shutil.move(tiny / "val" / "images" / image, tiny / "val" / name / image)
    (tiny / "val" / "val_annotations.txt").unlink()
    assert names(photographs("tiny-imagenet")) == first


def test_options_of_tiny_imagenet_choose_classes(tiny):
    for name in ("tiny-imagenet:50", "tiny-imagenet:18"):
        assert photographs(name).classes == tuple(CLASSES)
    assert photographs("tiny-imagenet:200").classes == tuple(sorted(CLASSES))  # all that the folder has
    assert photographs("tiny-imagenet:n02,n01").classes == ("n02", "n01")


def enlarge(folder):
    noisy_picture(folder / "train/n01/images/n01_0.JPEG", 9, size=(80, 80))


@pytest.mark.parametrize(
    ("spoil", "name", "says"),
    [
        (lambda f: shutil.rmtree(f), "tiny-imagenet", "train is not a folder"),
        (lambda f: shutil.rmtree(f / "train" / "n02"), "tiny-imagenet", "n02 lacks .JPEG images"),
        (lambda f: (f / "val/val_annotations.txt").unlink(), "tiny-imagenet", "n03 lacks .JPEG images"),
        (lambda f: None, "tiny-imagenet:7", "7 lacks .JPEG images"),
        (lambda f: None, "tiny-imagenet:n01", "has 1 classes with images, but a folder for each"),
        (enlarge, "tiny-imagenet", "n01_0.JPEG has 80 x 80 pixels instead of 64 x 64"),
    ],
)
def test_what_is_not_tiny_imagenet_gets_one_sentence(tiny, spoil, name, says):
    spoil(tiny)
    with pytest.raises(InputError, match=says):
        photographs(name)


def test_solar_cells_are_unpacked_once_and_keep_their_order(downloads, monkeypatch):
    probabilities = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")
    lines = [(n, probabilities[n % 4], ("mono", "poly")[n % 3 == 0]) for n in range(16)]

    def fetch(requirement, sha256, folder):
        with zipfile.ZipFile(folder / "elpv.whl", "w") as archive:
            rows = [f"images/cell{n:04}.png {probability}   {kind}" for n, probability, kind in lines]
            archive.writestr("elpv_dataset/data/labels.csv", "\n".join(rows))
            for n, *_ in lines:
                archive.writestr(
                    f"elpv_dataset/data/images/cell{n:04}.png",
                    noisy_picture(folder / "cell.png", 9 * n).read_bytes(),
                )
        return folder / "elpv.whl"

    monkeypatch.setattr(sets, "fetch_wheel", fetch)
    data = photographs("solar")
    assert [file.path.name for file in data.files] == [f"cell{n:04}.png" for n in range(16)]
    for file, (_, probability, kind) in zip(data.files, lines, strict=True):
        assert file.label == 2 * (kind == "poly") + (probability in ("0.6666666666666666", "1.0"))
        assert file.path.parent.name == data.classes[file.label] and file.test is None
    monkeypatch.setattr(sets, "fetch_wheel", None)  # not asked again
    assert photographs("solar") == data


def test_a_set_that_cannot_be_had_gets_one_sentence(monkeypatch):
    def refuses(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(sets, "fetch_wheel", refuses)
    with pytest.raises(InputError, match="solar could not be obtained .Network is unreachable.; put it"):
        photographs("solar")
    with pytest.raises(InputError, match="DCNAS_IMAGENET"):
        photographs("imagenet100")
    with pytest.raises(InputError, match="data set is 'mnist'"):
        photographs("mnist")


def test_own_folders_are_named_by_their_paths(tmp_path, monkeypatch):
    root = tmp_path / "own"
    for n in range(6):
        noisy_picture(root / "ab"[n % 2] / f"{n}.png", 99, n)
    (root / "nothing").mkdir()
    with pytest.warns(UserWarning, match="folders without images are left out as classes: nothing"):
        assert photographs(f"folder:{root}").classes == ("a", "b")
        before = identity_of(f"folder:{root}")
        noisy_picture(root / "a" / "new.png", 9)
        assert identity_of(f"folder:{root}") != before
    monkeypatch.chdir(tmp_path)
    assert set_named("own") == set_named("folder:./own") == f"folder:{root}"
    with pytest.raises(InputError, match="data is 'nowhere', but a folder"):
        set_named("nowhere")
    with pytest.raises(InputError, match="is not a folder"):
        photographs("folder:nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has 0 classes with images"):
        photographs("folder:empty")


def test_what_no_person_means_is_no_class_and_no_picture(tmp_path):
    root = tmp_path / "own"
    litter = ("__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", ".thumbnails")
    inside = [f"{name}/cat" for name in litter] + [f"cat/{name}" for name in litter]
    for place in ("cat", "dog", *inside):
        noisy_picture(root / place / "1.png", 99)
    (root / "dog" / "._1.png").write_bytes(b"\0\5\x16\7" + bytes(120))  # as macOS packs
    data = photographs(f"folder:{root}")
    assert data.classes == ("cat", "dog") and names(data) == [("1.png", 0, None), ("1.png", 1, None)]


def test_pictures_of_other_kinds_are_counted_and_named(tmp_path):
    for name in ("a.jfif", "b.JPG", "c.avif"):
        noisy_picture(tmp_path / "x.png", 9).rename(tmp_path / name)
    for name in ("d.heic", "e.CR2", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.warns(UserWarning, match="2 of kinds that are not read are left out: d.heic, e.CR2[.]"):
        assert [path.name for path in sets.pictures_in(tmp_path)] == ["a.jfif", "b.JPG", "c.avif"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    noisy_picture(tmp_path / "elsewhere" / "far.png", 9)
    noisy_picture(tmp_path / "own" / "near.png", 9)
    for name, target in (("more", "elsewhere"), ("back", "own")):
        (tmp_path / "own" / name).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere" / "home").symlink_to(tmp_path / "own")
    found = [str(path.relative_to(tmp_path / "own")) for path in sets.pictures_in(tmp_path / "own")]
    assert found == ["more/far.png", "near.png"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    noisy_picture(tmp_path / "open" / "1.png", 9)
    noisy_picture(tmp_path / "closed" / "2.png", 9)
    real = Path.iterdir

    def iterdir(folder):
        if folder.name == "closed":  # a right that root, who may run this, has anyway
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.warns(UserWarning, match="closed is left out: Permission denied"):
        assert [path.name for path in sets.pictures_in(tmp_path)] == ["1.png"]
