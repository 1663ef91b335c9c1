"""Files from anywhere: the good are read, the others refused in one clear line, and nothing in them runs."""

import json
import pickle
import resource
import struct
import warnings
import zipfile
from contextlib import suppress

import pytest
import safetensors.torch
import torch
from torch import nn

from sancli import weights
from sancli.errors import StorageError, WeightsError


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2))


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        weights.read(path)
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert str(path) in text
    assert text.count("\n") == 2, "one line each for what, why and fix"
    assert "weights_only" not in text, "torch's advice to switch the check off is never shown"
    return text


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# What is good


def test_what_is_saved_comes_back_with_its_description(tmp_path):
    state, path = small_network().state_dict(), tmp_path / "sub" / "model.safetensors"
    weights.save(path, state, info='{"classes": ["a", "b"]}')
    assert equal(weights.read(path), state)
    assert weights.read_info(path) == '{"classes": ["a", "b"]}'
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_equal_weights_give_equal_bytes(tmp_path):
    for name in "abcdefgh":  # safetensors orders several entries of its metadata at random
        weights.save(tmp_path / name, small_network().state_dict(), info="{}")
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1


def test_what_is_saved_can_be_read_by_safetensors_itself(tmp_path):
    state = small_network().state_dict() | {"turned": torch.arange(6.0).reshape(2, 3).T}
    weights.save(tmp_path / "m.safetensors", state, info="{}")
    assert equal(safetensors.torch.load_file(tmp_path / "m.safetensors"), state)


def test_the_authors_format_is_read_without_its_prefix_and_optimizer(tmp_path):
    network = small_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60])  # holds a collections.Counter
    content = {
        "epoch": 100,
        "state_dict": nn.DataParallel(network).state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "top1_val": 78.0,
    }
    torch.save(content, tmp_path / "model_best.pth")
    assert equal(weights.read(tmp_path / "model_best.pth"), network.state_dict())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the older form"])
def test_a_plain_state_dict_is_read(tmp_path, zipped):
    state = small_network().state_dict()
    torch.save(state, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    assert equal(weights.read(tmp_path / "m.pt"), state)


def test_foreign_safetensors_are_read_and_have_no_description(tmp_path):
    state = small_network().state_dict()
    safetensors.torch.save_file(state, tmp_path / "m.safetensors")
    assert equal(weights.read(tmp_path / "m.safetensors"), state)
    assert weights.read_info(tmp_path / "m.safetensors") is None


def test_the_content_decides_not_the_name(tmp_path):
    state = small_network().state_dict()
    torch.save(state, tmp_path / "m.safetensors")
    weights.save(tmp_path / "m.pth", state, info="{}")
    assert equal(weights.read(tmp_path / "m.safetensors"), state)
    assert equal(weights.read(tmp_path / "m.pth"), state)
    assert weights.read_info(tmp_path / "m.safetensors") is None


# Code in a file (row 49)


class Payload:
    """Unpickled by a careless reader, it writes a file."""

    def __init__(self, marker, function):
        self.marker, self.function = marker, function

    def __reduce__(self):
        arguments = {"open": (str(self.marker), "w"), "exec": (f"open({str(self.marker)!r}, 'w')",)}
        return self.function, arguments[self.function.__name__]


@pytest.mark.parametrize("function", [open, exec])
@pytest.mark.parametrize("name", ["m.pth", "m.pkl", "m.safetensors", "m.json"])
@pytest.mark.parametrize("form", ["pickle", "zip", "older"])
def test_code_in_a_file_is_named_and_never_runs(tmp_path, function, name, form):
    marker, path = tmp_path / "it ran", tmp_path / name
    content = {"state_dict": {"weight": torch.zeros(3)}, "evil": Payload(marker, function)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content["evil"]))  # the newest protocol
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    text = refusal(path)
    assert "refused: contains code (" in text
    assert f".{function.__name__})" in text
    assert weights.read_info(path) is None
    assert not marker.exists()


def test_what_torch_warns_of_in_a_damaged_file_is_not_shown(tmp_path):
    path = tmp_path / "m.pth"
    of_the_older_form = (0x1950A86A20F9469CFC6C, 1001, {})
    parts = [pickle.dumps(part, protocol=2) for part in of_the_older_form]
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01NtQ"
    called = b"\x80\x02" + storage + b")R."  # the storage itself
    path.write_bytes(b"".join(parts) + called + pickle.dumps(["0"], protocol=2))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert "damaged" in refusal(path)
    assert not warned


def test_code_in_an_ancient_pickle_never_runs(tmp_path):
    marker, path = tmp_path / "it ran", tmp_path / "m.pth"
    path.write_bytes(pickle.dumps(Payload(marker, open), protocol=0))
    refusal(path)
    assert not marker.exists()


# Damaged and other files (row 50)


def test_what_is_not_there_or_no_file_is_said(tmp_path):
    (tmp_path / "dangling.pth").symlink_to(tmp_path / "gone.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "no such file" in refusal(tmp_path / "missing.pth")
    assert "gone.pth, which is not there" in refusal(tmp_path / "dangling.pth")
    assert "it is a folder" in refusal(tmp_path / "folder.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (bytes(100_000), "zeros"),
        (b"\n<!DOCTYPE html><html><title>Quota exceeded</title>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n", "git-LFS"),
        (b'{"epoch": 1}', "JSON"),
        (b"\x1f\x8b\x08\x00\x00", "gzip"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "image"),
        (b"hello world, this is no checkpoint at all", "safetensors"),
        (b"x", "safetensors"),
    ],
)
def test_other_files_are_told_apart(tmp_path, content, says, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert says in refusal(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_no_cut_and_no_flipped_bit_of_a_file_goes_unseen(tmp_path, suffix):
    state, path = small_network().state_dict(), tmp_path / f"m{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        weights.save(path, state, info='{"classes": []}')
    whole = path.read_bytes()
    for end in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:end])
        refusal(path)
    for place in range(0, len(whole), 41):
        flipped = bytearray(whole)
        flipped[place] ^= 4
        path.write_bytes(flipped)
        with suppress(WeightsError):
            assert equal(weights.read(path), state), "a flip that is accepted lies in padding"


def test_a_zip_that_is_no_checkpoint_is_said(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("cat.txt", "meow")
    assert "an archive, but no checkpoint" in refusal(tmp_path / "photos.pth")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(50_000_000))
    assert "no checkpoint" in refusal(tmp_path / "bomb.pth")


@pytest.mark.parametrize("content", [7, [torch.zeros(2)], {}, {"state_dict": {"a": 3}}, {"a": "text"}])
def test_a_torch_file_without_a_state_dict_is_said(tmp_path, content):
    torch.save(content, tmp_path / "m.pth")
    assert "holds no state dict" in refusal(tmp_path / "m.pth")


def test_a_harmless_call_that_fills_the_memory_is_refused(tmp_path):
    content = b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."  # bytearray(2**40)
    (tmp_path / "m.pth").write_bytes(content)
    assert "builtins.bytearray" in refusal(tmp_path / "m.pth")


def word(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


ENDLESS = (  # a tensor of 2**30 numbers that are one, by a stride of 0
    b"ctorch._utils\n_rebuild_tensor_v2\n(("
    + word("storage")
    + b"ctorch\nFloatStorage\n"
    + word("0")
    + word("cpu")
    + b"K\x01tQK\x00J\x00\x00\x00\x40\x85K\x00\x85\x89ccollections\nOrderedDict\n)RtR"
)


@pytest.mark.parametrize(
    ("opcodes", "says"),
    [
        (b"c__builtin__\nset\n" + ENDLESS + b"\x85R.", "contains code (builtins.set)"),
        (b"ccollections\nCounter\n" + ENDLESS + b"R.", "contains code (collections.Counter)"),
        (b"ccollections\nOrderedDict\n)R" + ENDLESS + b"b.", "contains code (a state that was computed)"),
        (
            b"c_codecs\nencode\n" * 40 + word("a") + (word("hex") + b"\x86R") * 40 + b".",
            "contains code (_codecs.encode)",
        ),
        (b"ctorch.storage\nUntypedStorage\n" + ENDLESS + b"\x85R.", "contains code"),
        (b"(" + b"\x8f" * 600_000 + b"t.", "over 500,000 parts"),
        (b"(" * 600_000 + b".", "over 500,000 parts"),
    ],
    ids=["set", "spread", "state", "hex", "storage", "empty sets", "marks"],
)
def test_a_pickle_cannot_grow_in_memory(tmp_path, opcodes, says):
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + opcodes)
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/data/0", bytes(4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert says in refusal(tmp_path / "m.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15, "KiB"


def test_what_checkpoints_hold_besides_tensors_is_no_code(tmp_path):
    beside = {
        "bytes": b"\xff\x00",
        "set": {1, 2},
        "complex": 1j,
        "dtype": torch.half,
        "size": torch.Size([3]),
    }
    state = nn.ModuleDict({"a": small_network()}).state_dict()  # an OrderedDict with a state
    for zipped in (True, False):
        torch.save(
            {"state_dict": state, "beside": beside, "parameter": nn.Parameter(torch.zeros(2))},
            tmp_path / "m.pth",
            _use_new_zipfile_serialization=zipped,
        )
        assert equal(weights.read(tmp_path / "m.pth"), state)


def test_names_that_a_pickle_puts_over_the_methods_of_its_dict_are_not_called(tmp_path):
    state = small_network().state_dict()
    torch.save(state, tmp_path / "plain.pth")
    shadows = b"}" + b"".join(word(name) + b"K\x05s" for name in ("items", "get")) + b"b."
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "m.pth", "w") as archive,
    ):
        for name in plain.namelist():
            content = plain.read(name)
            archive.writestr(name, content[:-1] + shadows if name.endswith("data.pkl") else content)
    assert equal(weights.read(tmp_path / "m.pth"), state)


def test_a_member_with_a_password_is_refused(tmp_path):
    torch.save(small_network().state_dict(), tmp_path / "m.pth")
    content = bytearray((tmp_path / "m.pth").read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of the last member
    (tmp_path / "m.pth").write_bytes(content)
    assert "password" in refusal(tmp_path / "m.pth")


def test_a_member_that_one_flipped_bit_makes_a_folder_is_refused(tmp_path):
    """torch takes it without a word, and gives memory as it lies in place of the tensor."""
    path = tmp_path / "a.pth"
    torch.save({"weight": torch.ones(5)}, path)
    data = bytearray(path.read_bytes())
    name = data.rindex(b"/data/0")  # in the table of contents, 46 bytes behind the start of its entry
    entry = data.rindex(b"PK\x01\x02", 0, name)
    data[entry + 38] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="marked as a folder"):
        weights.read(path)


def test_a_header_that_would_fill_the_memory_is_refused_unread(tmp_path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"{number:x}": entry for number in range(100_000)}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "its header has" in refusal(tmp_path / "m.safetensors")


def test_a_few_bytes_that_claim_terabytes_are_refused(tmp_path):
    bomb = torch.zeros(1).expand(1_000_000, 1_000_000)
    torch.save({"weight": bomb}, tmp_path / "m.pth")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "its tensors claim 3725.3 GiB" in refusal(tmp_path / "m.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


# Malformed safetensors (row 53)


def header(text, data=b""):
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",  # a header of exabytes
        struct.pack("<Q", 50_000) + b"{}",  # a header longer than the file
        struct.pack("<Q", 2),  # no header at all
        header(b"{"),
        header(b"{]"),
        header(b"{'a': 1}"),
        header(b'{"a": 1}'),
        header(b'{"\xff": {}}'),
        header(b'{"a": {"dtype": "F32"}}'),
        header(entry(dtype="F33"), bytes(8)),
        header(entry(dtype="PY"), bytes(8)),
        header(entry(shape=(3,)), bytes(8)),  # the shape asks for more bytes than the offsets
        header(entry(shape=(-2,)), bytes(8)),
        header(entry(shape=(2**40, 2**40)), bytes(8)),
        header(entry(offsets=(8, 0)), bytes(8)),
        header(entry(offsets=(0, 8)), bytes(7)),  # one byte short
        header(entry(offsets=(0, 8)), bytes(9)),  # one byte too many
        header(entry(offsets=(4, 12)), bytes(12)),  # a hole in front
        header(entry(offsets=(0, 2**64)), bytes(8)),
        header(b'{"__metadata__": {"sancli": 3}}'),
    ],
)
def test_malformed_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    refusal(path)
    with pytest.raises(WeightsError):
        weights.read_info(path)


# Into a network (rows 51 and 52)


def misfit(network, state):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        weights.load_into(network, state, source="m.pth")
    assert equal(network.state_dict(), before), "a refused file leaves the network as it was"
    return str(caught.value)


def test_a_fitting_state_is_loaded(tmp_path):
    source, target = small_network(), small_network()
    nn.init.normal_(source[0].weight)
    weights.load_into(target, source.state_dict(), source=tmp_path)
    assert equal(target.state_dict(), source.state_dict())


def test_a_network_without_memory_takes_the_tensors_themselves(tmp_path):
    """As they lie in the file: neither random numbers nor copies come first."""
    source = small_network()
    weights.save(tmp_path / "m.safetensors", source.state_dict(), info="{}")
    with torch.device("meta"):
        target = small_network().to(memory_format=torch.channels_last)
    strides = target[0].weight.stride()
    state = weights.read(tmp_path / "m.safetensors")
    weights.load_into(target, state, source=tmp_path)
    assert equal(target.state_dict(), source.state_dict())
    assert target[0].weight.stride() == strides != state["0.weight"].stride()
    assert all(value.data_ptr() == state[name].data_ptr() for name, value in target.state_dict().items())
    assert all(parameter.requires_grad for parameter in target.parameters())


def test_a_network_without_memory_has_its_own_layout_and_type_afterwards():
    source = nn.Conv2d(2, 3, 3)
    with torch.device("meta"):
        target = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    weights.load_into(target, {k: v.double() for k, v in source.state_dict().items()}, source="m.pth")
    assert equal(target.state_dict(), source.state_dict())
    assert target.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_sum_that_overflows_is_no_fault():
    network = small_network()
    large = network.state_dict() | {"3.bias": torch.full((2,), 3e38)}
    weights.load_into(network, large, source="m.pth")
    assert torch.equal(network[3].bias, large["3.bias"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_are_converted(tmp_path, dtype):
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in small_network().state_dict().items()
    }
    network = small_network()
    weights.load_into(network, state, source=tmp_path)
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    torch.testing.assert_close(network[0].weight, small_network()[0].weight, atol=0.01, rtol=0.01)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("0.weight", torch.full((5, 3, 1, 1), torch.nan), "not finite"),
        ("1.running_mean", torch.tensor([0, 0, torch.inf, 0, 0]), "not finite"),
        ("3.bias", torch.tensor([1e300, 0], dtype=torch.float64), "not finite"),  # infinite in float32
        ("1.running_var", torch.tensor([1.0, 1, -0.1, 1, 1]), "negative variances"),
        ("3.weight", torch.ones(2, 5, dtype=torch.int8), "is int8 instead of float32"),
        ("3.weight", torch.ones(2, 5, dtype=torch.complex64), "is complex64 instead of float32"),
        ("1.num_batches_tracked", torch.tensor(1.0), "is float32 instead of int64"),
    ],
)
def test_values_that_would_answer_nonsense_are_refused(name, value, says):
    network = small_network()
    text = misfit(network, network.state_dict() | {name: value})
    assert f"{name} " in text
    assert says in text


def test_missing_extra_and_misshapen_keys_are_counted_and_one_is_named():
    network = small_network()
    state = network.state_dict()
    assert "missing keys: 2 of 9 (e.g. 3.weight)" in misfit(
        network, {name: value for name, value in state.items() if not name.startswith("3.")}
    )
    assert "keys too many: 1 (e.g. extra)" in misfit(network, state | {"extra": torch.zeros(1)})
    assert "differing shapes: 1 of 9 (e.g. 3.bias is 3 instead of 2)" in misfit(
        network, state | {"3.bias": torch.zeros(3)}
    )


# On a bad disk


@pytest.mark.parametrize("limit", [0, 100, 5000])
def test_a_full_disk_leaves_the_old_weights(tmp_path, limit):
    path = tmp_path / "m.safetensors"
    weights.save(path, {"a": torch.zeros(9)}, info="old")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises(StorageError, match="no space"):
            weights.save(path, {"a": torch.ones(9000)}, info="new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert weights.read_info(path) == "old"
    assert equal(weights.read(path), {"a": torch.zeros(9)})
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


# The cache


def test_a_network_that_was_not_downloaded_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SAN_CACHE", str(tmp_path))
    assert not weights.is_downloaded("san15-pairwise")
    with pytest.raises(WeightsError, match="san download-weights san15-pairwise"):
        weights.published("san15-pairwise")
    weights.save(weights.cached("san15-pairwise"), {"a": torch.zeros(1)}, info="{}")
    assert weights.is_downloaded("san15-pairwise")
    assert weights.published("san15-pairwise") == tmp_path / "weights" / "san15-pairwise.safetensors"
