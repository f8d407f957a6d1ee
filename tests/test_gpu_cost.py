"""Counting machine code: loops and instructions of a known listing, and every kernel that the estimates speak of."""

import pytest
import typer
from typer.testing import CliRunner

from structops.bench.gpu_cost import estimates, sass
from structops.bench.gpu_cost.gpu import H200, occupancy
from structops.bench.gpu_cost.kernels import rate_of
from structops.bench.gpu_cost.scenes import scenes
from structops.cli import gpu_cost

# Rows (0x20 to 0xe0) of columns, the compiler's way: a turn that is left over, then two at a time.
LISTING = """
\t\tFunction : _ZN9structops4cuda4rowsIfEEvPT_
\t.headerflags\t@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;
                                                                    /* 0x00000a00ff017b82 */
        /*0010*/              @!P2 BRA 0xf0 ;
        /*0020*/                   IMAD.MOV.U32 R4, RZ, RZ, 0x2 ;
        /*0030*/              @!P1 BRA 0x70 ;
        /*0040*/                   LDG.E R7, desc[UR4][R2.64] ;
        /*0050*/                   IADD3 R2, P0, R2, 0x4, RZ ;
        /*0060*/                   FFMA R0, R7, R5, R0 ;
        /*0070*/                   LDG.E R7, desc[UR4][R2.64] ;
        /*0080*/                   LDG.E R8, desc[UR4][R2.64+0x4] ;
        /*0090*/                   IADD3 R2, P0, R2, 0x8, RZ ;
        /*00a0*/                   FFMA R0, R7, R5, R0 ;
        /*00b0*/                   FFMA R0, R8, R6, R0 ;
        /*00c0*/               @P3 BRA 0x70 ;
        /*00d0*/                   UIADD3 UR6, UR6, 0x1, URZ ;
        /*00e0*/              @!P0 BRA P4, 0x20 ;
        /*00f0*/                   STG.E desc[UR4][R2.64], R0 ;
        /*0100*/                   EXIT ;
        /*0110*/                   BRA 0x110;
"""


def built() -> bool:
    try:
        return bool(estimates.libraries())
    except FileNotFoundError:
        return False


needs_library = pytest.mark.skipif(
    bool(sass.missing_tools()) or not built(), reason="the CUDA kernels are not built here, or cannot be read"
)


def test_loops_of_a_listing():
    (name,) = sass.parse(LISTING)
    assert name == "_ZN9structops4cuda4rowsIfEEvPT_"
    kernel = sass.Kernel(sass.parse(LISTING)[name])
    assert len(kernel.instructions) == 18
    assert [i.opcode for i in kernel.instructions[:2]] == ["LDC", "BRA"]  # predicates are no opcodes
    (row,) = kernel.body.inner
    (column,) = row.inner
    assert (row.first, row.last, column.first, column.last) == (0x20, 0xE0, 0x70, 0xC0)
    # The branch to itself that fills the end is no loop.
    assert [len(loop.own) for loop in (kernel.body, row, column)] == [5, 7, 6]
    assert kernel.hottest("LDG", depth=2) == [row, column]
    with pytest.raises(ValueError, match="no 3 nested loops around LDG"):
        kernel.hottest("LDG", depth=3)


def test_left_over_turns_cost_what_the_others_do():
    kernel = sass.Kernel(*sass.parse(LISTING).values())
    around, each = rate_of(*kernel.hottest("LDG", depth=2), "LDG")
    # Six instructions for two columns; of the row's seven, three are a column's that is left over.
    assert (around, each) == (4.0, 3.0)


def test_two_branches_back_to_one_place_are_one_loop():
    text = LISTING.replace("@!P1 BRA 0x70", "@!P1 BRA 0x20")
    (row,) = sass.Kernel(*sass.parse(text).values()).body.inner
    assert (row.first, row.last, len(row.inner)) == (0x20, 0xE0, 1)


def test_short_names():
    demangled = (
        "void structops::cuda::(anonymous namespace)::k<float, 4, structops::cuda::(anonymous namespace)::M>(int)"
    )
    assert sass.short_name(demangled) == "k<float, 4, M>"


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "share"),
    [
        (32, 256, 0, 1.0),
        (64, 128, 0, 0.5),
        (65, 128, 0, 7 / 16),  # registers are given out eight at a time
        (32, 32, 0, 0.5),  # 32 blocks, however small
        (32, 256, 100 * 1024, 0.25),  # two blocks of shared memory
    ],
)
def test_occupancy(registers, threads, shared, share):
    assert occupancy(sass.Kernel([], registers), threads, shared) == share


def test_limits_are_the_gpus():
    times = H200.times(4.3e12, 5.5e12, 132 * 1.7e9, 4 * 132 * 1.7e9)
    assert times == pytest.approx({"memory": 1, "L2": 1, "L1": 1, "issue": 1})


@needs_library
def test_every_kernel_that_is_counted_is_there_and_has_the_loops():
    code = sass.read(estimates.libraries()[0])
    for scene in scenes():
        for launch in scene.own():
            kernel = code[launch.kernel]
            issued = launch.instructions(kernel)
            assert issued > 0, (scene.title, launch.kernel)
            assert kernel.registers > 0


@needs_library
def test_command(tmp_path):
    app = typer.Typer()
    app.command()(gpu_cost.command)
    done = CliRunner().invoke(app, ["roi_pool", "--report", str(tmp_path / "page")])
    assert done.exit_code == 0, done.output
    assert "box head, bf16 NHWC" in done.output
    page = (tmp_path / "page/index.md").read_text()
    assert page.startswith("# ")
    assert "| roi_pool | box head, fp32 NHWC | 1" in page
    assert {p.name for p in (tmp_path / "page").iterdir()} == {"index.md", "gpu-cost.png", "gpu-cost.svg"}
    assert CliRunner().invoke(app, ["softmax"]).exit_code == 2
