"""What perf says becomes a picture."""

import collections
from xml.etree import ElementTree

import flames

SAMPLE = """
\t          29c52c [unknown] (/usr/lib/x86_64-linux-gnu/libcrypto.so.3)
\t          29f911 SHA256_Update@@OPENSSL_3.0.0 (/usr/lib/x86_64-linux-gnu/libcrypto.so.3)
\t           750f4 ckpt::Sha256(std::span<std::span<std::byte const, 1ul> const, 1ul>) (/build/bin/ckptd)
\t           3325b ckpt::client::(anonymous namespace)::Planner::Ask(std::span<unsigned long>)::{lambda()#1} (/b/product)
\t           4cad4 std::_Function_handler<absl::Status (int&), void>::_M_invoke(int&) (/build/bin/ckptd)
\tffffffff82000134 entry_SYSCALL_64_after_hwframe ([kernel.kallsyms])
\t           27249 __libc_start_call_main (/usr/lib/x86_64-linux-gnu/libc.so.6)
"""
NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_frames_are_named_and_noise_is_left_out():
    assert flames.frames_of(SAMPLE.strip("\n")) == [
        ("entry_SYSCALL_64_after_hwframe", "kernel"),
        ("Planner::Ask", "ckpt"),
        ("ckpt::Sha256", "ckpt"),
        ("SHA256_Update", "libcrypto"),
    ]


def test_a_frame_is_as_wide_as_its_share(tmp_path):
    outer, left, right = ("ckptd", "other"), ("a<b>", "ckpt"), ("b", "kernel")
    stacks = collections.Counter({(outer, left): 30, (outer, right): 10, (outer, right, left): 60})
    flames.draw(tmp_path / "x.svg", "a & b", stacks)
    svg = ElementTree.parse(tmp_path / "x.svg").getroot()
    boxes = {
        group.findtext(f"{NAMESPACE}title"): group.find(f"{NAMESPACE}rect").attrib for group in svg.iter(f"{NAMESPACE}g")
    }
    assert {"all: 100.0%", "ckptd: 100.0%", "a<b>: 30.0%", "b: 70.0%", "a<b>: 60.0%"} == boxes.keys()
    assert float(boxes["b: 70.0%"]["width"]) == 0.7 * flames.WIDTH
    assert float(boxes["b: 70.0%"]["x"]) == float(boxes["a<b>: 60.0%"]["x"]) == 0.3 * flames.WIDTH
    assert float(boxes["a<b>: 60.0%"]["y"]) < float(boxes["b: 70.0%"]["y"])
