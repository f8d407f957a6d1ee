"""Counting machine code: loops and instructions of a known listing, and every kernel that the estimates speak of."""

import pytest
import typer
from typer.testing import CliRunner

from structops.bench.gpu_cost import estimates, sass
from structops.bench.gpu_cost.gpu import H200, occupancy
from structops.bench.gpu_cost.kernels import Launch, rate_of
from structops.bench.gpu_cost.scenes import families
from structops.bench.gpu_cost.walks import Walk, bank_turns, walked
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


# Rows whose step is skipped for some (to 0xb0); one way of doing it writes (0x80), the other may call (0x60).
BRANCHES = """
\t\tFunction : branches
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P2 EXIT ;
        /*0020*/              @!P0 BRA 0xb0 ;
        /*0030*/                   LDS.128 R4, [R2] ;
        /*0040*/               @P1 BRA 0x80 ;
        /*0050*/               @P3 BRA 0x70 ;
        /*0060*/                   CALL.REL.NOINC 0x110 ;
        /*0070*/                   BRA 0x90 ;
        /*0080*/                   STG.E.128 [R2], R4 ;
        /*0090*/                   HMMA.16816.F32 R4, R4, R8, R4 ;
        /*00a0*/                   STS [R2], R4 ;
        /*00b0*/               @P4 BRA 0x20 ;
        /*00c0*/                   EXIT ;
        /*00d0*/                   BRA 0xd0;
"""


def branches() -> sass.Kernel:
    return sass.Kernel(*sass.parse(BRANCHES).values())


@pytest.mark.parametrize(
    ("payload", "taken"),
    [
        ((), [0x20, 0xB0]),
        (("STS",), [0x20, 0x30, 0x40, 0x80, 0x90, 0xA0, 0xB0]),  # one way is as long as the other without the call
        (("STG", "HMMA"), [0x20, 0x30, 0x40, 0x80, 0x90, 0xA0, 0xB0]),
        (("CALL",), [0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xB0]),
    ],
)
def test_shortest_ways_that_do_the_work(payload, taken):
    (row,) = branches().body.inner
    assert [i.address for i in row.path(*payload)] == taken
    # The early end of a kernel is no shortcut to what is asked for, be it in a loop.
    assert [i.address for i in branches().body.path(*payload)] == [0x0, 0x10, *([0xC0] if payload else [])]


def test_ways_without_the_work_are_refused():
    with pytest.raises(ValueError, match="no LDGSTS in the loop"):
        branches().body.path("LDGSTS", "STS")


def test_walks_are_added_up():
    kernel = branches()
    launch = walked("branches", 32, 0, lambda code: [Walk(code.body.inner[0].path("STS"), 3, conflicts=2)])
    assert launch.instructions(kernel) == 3 * 7
    assert launch.wavefronts(kernel) == 3 * (4 + 1 + 2)  # 16 bytes a lane, 4 bytes a lane, and the conflicts
    assert launch.tensor_flops(kernel) == 3 * 2 * 16 * 8 * 16


@pytest.mark.parametrize(
    ("words", "width", "turns"),
    [
        (range(32), 1, 1),
        ([0] * 32, 1, 1),  # all read the same
        (range(0, 64, 2), 1, 2),
        (range(0, 1024, 32), 1, 32),
        (range(0, 128, 4), 4, 4),  # eight lanes at a time
        (range(0, 256, 8), 4, 8),
    ],
)
def test_turns_of_the_banks(words, width, turns):
    assert bank_turns(words, width) == turns


@pytest.mark.parametrize(("blocks", "share"), [(0, 1), (132, 1), (133, 264 / 133), (1, 132)])
def test_the_busiest_multiprocessor(blocks, share):
    assert Launch("", 32, 0, len, blocks=blocks).share_of_busiest(132) == share


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
    clocks = 132 * 1.7e9
    times = H200.times(4.3e12, 5.5e12, clocks, 4 * clocks, clocks, 0.63 * 4096 * clocks)
    assert times == pytest.approx(dict.fromkeys(("memory", "L2", "L1", "shared", "issue", "tensor"), 1))
    assert H200.floor(4.3e12, 0, True) == pytest.approx(1)
    assert H200.floor(0, 4096 * clocks, True) == H200.floor(0, 256 * clocks, False) == pytest.approx(1)


@needs_library
def test_every_kernel_is_there_and_does_what_has_to_be_done():
    code = sass.read(estimates.libraries()[0])
    for scene in (scene for family in families() for draw in family.scenes.values() for scene in draw()):
        for launch in scene.own():
            assert launch.instructions(code[launch.kernel]) > 0, (scene.title, launch.kernel)
            assert code[launch.kernel].registers > 0
        found = estimates.estimate(scene, code, None)
        own, cost = found.own, found.cost
        assert own.bytes >= cost.bytes, scene.title
        assert own.least >= found.floor, scene.title
        # A multiply-add of each lane, at best.
        assert own.instructions * scene.outputs * 2 + own.tensor_flops >= cost.flops, scene.title
        if own.tensor_flops:
            # Tiles of whole channels, positions and depths: 21 channels are a depth of 32.
            assert 1 <= own.tensor_flops / cost.flops < 2, scene.title
            assert own.busiest < 2, scene.title


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
    assert {p.name for p in (tmp_path / "page").iterdir()} == {"index.md", "gpu-cost-roi.png", "gpu-cost-roi.svg"}
    assert CliRunner().invoke(app, ["softmax"]).exit_code == 2
