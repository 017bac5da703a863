"""Analysis of hand-written HLO, gradients of convolutions, and errors of a compiler that aborts."""

import sys

import pytest

from contextssl_jax.benchmarks import compiled as benchmark
from contextssl_jax.errors import UserError
from contextssl_jax.planning import targets
from contextssl_jax.planning.compiled import (
    Cost,
    cost_by_part,
    count_data_movement,
    products_by_precision,
)
from contextssl_jax.planning.hardware import Chip
from contextssl_jax.planning.hlo import parse_hlo
from contextssl_jax.planning.isolation import run_isolated
from contextssl_jax.planning.products import find_product

# A program as compilers write it: tuples, layouts with tiles, comments, a loop, nested fusions.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,4]{1,0})->f32[4]{0}}

%inner (a: f32[8,4]) -> bf16[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  ROOT %low = bf16[8,4]{1,0} convert(%a)
}

%conversion (b: f32[8,4]) -> bf16[8,4] {
  %b = f32[8,4]{1,0} parameter(0)
  ROOT %nested = bf16[8,4]{1,0} fusion(%b), kind=kLoop, calls=%inner
}

%product (c: bf16[8,4], d: bf16[4,8]) -> f32[8,8] {
  %c = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %d = bf16[4,8]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,8]{1,0} dot(%c, %d), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %state = (s32[], /*index=1*/f32[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8,8]{1,0} get-tuple-element(%state), index=1
  %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}, metadata={op_name="jit(step)/transpose(jvp(Net))/dot"}
  ROOT %next = (s32[], f32[8,8]{1,0}) tuple(%i, %y)
}

%condition (state.1: (s32[], f32[8,8])) -> pred[] {
  %state.1 = (s32[], f32[8,8]{1,0}) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (p: f32[8,4], q: bf16[4,8], images: bf16[2,4,4,3], kernel: bf16[8,3,3,3]) -> f32[4] {
  %p = f32[8,4]{1,0} parameter(0)
  %q = bf16[4,8]{1,0} parameter(1)
  %cast = bf16[8,4]{1,0} fusion(%p), kind=kLoop, calls=%conversion, metadata={op_name="jit(step)/jvp(Net)/cast"}
  %matmul = f32[8,8]{1,0} fusion(%cast, %q), kind=kOutput, calls=%product, metadata={op_name="jit(step)/jvp(Net)/dot"}, backend_config={"window_config":{"estimated_cycles":"30"}}
  %images = bf16[2,4,4,3]{3,2,1,0} parameter(2)
  %kernel = bf16[8,3,3,3]{3,2,1,0} parameter(3)
  %t = (bf16[2,4,4,8]{3,2,1,0}, u8[16]{0}) custom-call(%images, %kernel), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="jit(step)/jvp(Other)/conv"}
  %turned = f32[8,8]{0,1} copy(%matmul), metadata={op_name="jit(step)/jvp()/turn"}
  %same = f32[8,8]{0,1} copy(%turned)
  %ahead = (f32[8,8]{0,1}, f32[8,8]{0,1:T(8)S(1)}, u32[]) copy-start(%same)
  %there = f32[8,8]{0,1:T(8)S(1)} copy-done(%ahead)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,8]{0,1}) tuple(%zero, %same)
  %loop = (s32[], f32[8,8]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %last = f32[8,8]{1,0} get-tuple-element(%loop), index=1
  ROOT %sum = f32[8]{0} add(%last, %last), metadata={op_name="jit(step)/add"}
}
"""  # noqa: E501


# A chip on which a byte takes 1 s, a bfloat16 product 1/2 s and a float32 one 1 s or 4 s.
CHIP = Chip("test", 4.0, {"default": 2.0, "highest": 0.5}, 0.0, 1.0, 1)


def test_cost_by_part():
    costs = cost_by_part(parse_hlo(PROGRAM), {"Net": "net"}, CHIP)
    f32, bf16, product = 8 * 8 * 4, 8 * 4 * 2, 2 * 8 * 8 * 4
    cast = 8 * 4 * 4 + bf16
    # Images, kernel, result and workspace. Of each axis' 12 taps, 2 read the padding.
    convolved, taps = 2 * (2 * 16 * 3 + 8 * 9 * 3 + 2 * 16 * 8) + 16, 10
    assert costs == {
        "net, forward": Cost(
            kernels=2,
            bytes=cast + (bf16 + bf16 + f32),
            flops=product,
            peak_seconds=product / 4,
            roofline_seconds=cast + (bf16 + bf16 + f32),
            cycles=30,
        ),
        # Both operands of each are one array, which is read once.
        "net, backward": Cost(
            kernels=5,
            bytes=5 * 2 * f32,
            flops=5 * 2 * product,
            peak_seconds=5 * 2 * product / 0.5,
            roofline_seconds=5 * 2 * product / 0.5,
        ),
        "rendering and loss, forward": Cost(
            kernels=2,
            bytes=convolved + 2 * f32,
            flops=2 * 2 * 3 * 8 * taps**2,
            peak_seconds=2 * 2 * 3 * 8 * taps**2 / 4,
            roofline_seconds=2 * 2 * 3 * 8 * taps**2 / 4 + 2 * f32,
        ),
        "update": Cost(
            kernels=2,
            bytes=2 * f32 + (f32 + 8 * 4),
            roofline_seconds=2 * f32 + (f32 + 8 * 4),
        ),
    }


def test_products_count_within_fusions_loops_and_libraries():
    assert products_by_precision(parse_hlo(PROGRAM)) == {
        "f32 x f32, highest": 5,
        "bf16 x bf16": 2,
    }


LIBRARY_GRADIENTS = """\
ENTRY %main (x: bf16[2,8,8,3], g: bf16[2,4,4,5], k: bf16[5,3,3,3]) -> bf16[2,8,8,3] {
  %x = bf16[2,8,8,3]{3,2,1,0} parameter(0)
  %g = bf16[2,4,4,5]{3,2,1,0} parameter(1)
  %k = bf16[5,3,3,3]{3,2,1,0} parameter(2)
  %for = bf16[2,4,4,5]{3,2,1,0} custom-call(%x, %k), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %kernel = bf16[5,3,3,3]{3,2,1,0} custom-call(%x, %g), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %input = bf16[2,8,8,3]{3,2,1,0} custom-call(%g, %k), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  %same = bf16[2,8,8,3]{3,2,1,0} convolution(%g, %k), window={size=3x3 pad=1_2x1_2 lhs_dilate=2x2 rhs_reversal=1x1}, dim_labels=b01f_i01o->b01f
  ROOT %product = bf16[2,2]{1,0} custom-call(%x, %x), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1","2","3"]}}}
}
"""  # noqa: E501


def test_gradients_of_a_convolution_have_its_flops():
    computation = parse_hlo(LIBRARY_GRADIENTS).computations["main"]
    found = {name: find_product(one, computation) for name, one in computation.items()}
    flops = {name: product.flops for name, product in found.items() if product}
    assert flops.pop("product") == 2 * 2 * 2 * 8 * 8 * 3
    assert flops == dict.fromkeys(("for", "kernel", "input", "same"), 2 * 2 * 3 * 5 * 11**2)


def test_data_movement_is_counted_by_kind():
    found = count_data_movement(parse_hlo(PROGRAM))
    assert {kind: dict(counts) for kind, counts in found.items()} == {
        "copies": {"count": 1, "bytes": 8 * 8 * 4},
        "transposes": {"count": 1, "bytes": 8 * 8 * 4},
        "conversions": {"count": 1, "bytes": 8 * 4 * 2},
        "prefetches": {"count": 1, "bytes": 8 * 8 * 4 + 4},
    }


def test_text_without_an_entry_computation_raises():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        parse_hlo("HloModule jit_step")


# Aborts as XLA does. With verbose logging of the failed file, it prints operations first.
ABORTING = """
import os, sys
if os.environ.get("TF_CPP_VMODULE") == "tiling=10":
    for name in ("jit(step)/jvp(Net)/conv1/slice", "jit(step)/relu", "jit(step)/jvp(Net)/conv1/slice"):
        print(f'I1126 15:35 7 tiling.cc:816] Analyzing %x, metadata={{op_name="{name}"}}',
              file=sys.stderr)
print("F1126 15:30:34.764703    4648 tiling.cc:627] Check failed: size == dim (256 vs. 32) ",
      "*** Check failure stack trace: ***",
      "    @     0x7f2e94ea1daf  xla::gpu::(anonymous namespace)::Propagate()",
      "    @     0x7f2e94c663c6  xla::gpu::GemmFusion::RunImpl()",
      "    @     0x7f2e9de57b3a  xla::HloPassPipeline::RunImpl()", sep="\\n", file=sys.stderr)
sys.stderr.flush()
os.abort()
"""  # noqa: E501


def test_abort_error_names_check_pass_and_operations():
    with pytest.raises(UserError) as caught:
        run_isolated([sys.executable, "-c", ABORTING], {})
    assert str(caught.value) == (
        "the XLA compiler aborted: tiling.cc:627: Check failed: size == dim (256 vs. 32), in pass"
        " GemmFusion, after operations relu, jvp(Net)/conv1/slice"
    )


def test_signal_without_output_is_named():
    with pytest.raises(UserError, match=r"killed by signal 6 \(no output\)"):
        run_isolated([sys.executable, "-c", "import os; os.abort()"], {})


def test_xla_flags_are_appended_and_output_is_returned(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--one")
    program = "import os, sys; print(os.environ['XLA_FLAGS']); sys.exit(3)"
    status, output, _ = run_isolated([sys.executable, "-c", program], {"XLA_FLAGS": "--two"})
    assert status == 3 and output.split() == ["--one", "--two"]


@pytest.mark.parametrize("arguments, message", [
    (("--chip=v7",), "--chip: unknown value 'v7'. Choose one of h100, v5e, v5p, v6e."),
    ((), "--chip: required. Choose one of h100, v5e, v5p, v6e."),
    (("--chip=h100",), "--chip=h100: its compiler is not installed. Run: pip install"
                       " 'contextssl-jax[compile-gpu]'"),
    (("--chip=v5e",), "Run: pip install 'contextssl-jax[compile-tpu]'"),
])  # fmt: skip
def test_missing_argument_or_compiler_is_a_one_line_error(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(targets, "is_installed", lambda module: False)
    assert benchmark.main(["compiled", "--config=configs/debug.py", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
