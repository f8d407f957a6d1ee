"""No op without its parts: walks every schema in the ``structops`` namespace of the dispatcher."""

import importlib
import inspect
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import structops
from structops import testing
from structops._backend import OPS

NAMES = sorted(
    name.split("::")[1].split(".")[0]
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("structops::")
)
PUBLIC = [name for name in NAMES if not name.startswith("_")]
SPECS = testing.specs()
ROOT = Path(__file__).resolve().parents[1]


def test_there_are_ops():
    assert {"roi_align", "roi_align_backward", "nms", "batched_nms"} <= set(PUBLIC)
    assert set(OPS) == set(PUBLIC), "registered in one place only: C++ or structops.ops"


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(PUBLIC)))
def test_internal_ops_take_no_tensor(name):
    # A name with an underscore says something about the library; an op on tensors must have all its parts.
    schema = getattr(torch.ops.structops, name).default._schema
    assert not any("Tensor" in str(a.type) for a in (*schema.arguments, *schema.returns))


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("namespace", ["structops", "structops_triton", "structops_reference"])
def test_every_backend_has_the_whole_op(name, namespace):
    qualified = f"{namespace}::{name}"
    overload = getattr(getattr(torch.ops, namespace), name).default
    assert str(overload._schema).split("::")[1] == OPS[name].signature
    entry = torch._library.simple_registry.singleton.find(qualified)
    assert entry.fake_impl.kernel is not None, "no fake kernel"
    differentiable = torch._C._dispatch_has_kernel_for_dispatch_key(qualified, "Autograd")
    assert differentiable == OPS[name].differentiable, "no autograd formula"
    assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(qualified, "CPU"), "no CPU kernel"
    assert torch.Tag.pt2_compliant_tag in overload.tags or namespace == "structops"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_op_is_covered_by_cases(name):
    covering = [spec for spec in SPECS.values() if name in spec.dispatcher_ops]
    assert covering, "no spec in structops.testing.cases names it"
    assert OPS[name].differentiable == any(spec.differentiable for spec in covering)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_op_has_a_definition_and_a_triton_kernel(name):
    modules = ["structops.reference"]
    if find_spec("triton") is not None:
        modules.append("structops.triton_kernels")
    for package in modules:
        module = importlib.import_module(f"{package}.{OPS[name].module}")
        arguments = [a.name for a in getattr(torch.ops.structops, name).default._schema.arguments]
        assert list(inspect.signature(getattr(module, name)).parameters) == arguments, package
    assert inspect.getdoc(OPS[name].implementation("reference"))


@pytest.mark.skipif(torch.version.cuda is None, reason="torch was built without CUDA")
@pytest.mark.skipif(structops._libraries.problems["_C_cuda"] is not None, reason="_C_cuda is not built")
@pytest.mark.parametrize("name", PUBLIC)
def test_every_op_has_a_cuda_kernel(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"structops::{name}", "CUDA")


@pytest.mark.parametrize("module", sorted({op.module for op in OPS.values()}))
def test_every_module_has_its_files(module):
    wanted = [
        f"csrc/{module}",
        f"structops/ops/{module}.py",
        f"structops/reference/{module}.py",
        f"structops/testing/cases/{module}.py",
        f"structops/testing/workloads/{module}.py",
        f"triton_kernels/{module}.py",
        f"tests/test_{module}.py",
        f"benchmarks/bench_{module}.py",
    ]
    if not (ROOT / "structops").is_dir():  # the tests beside an installed package
        wanted = [path for path in wanted if path.startswith("tests/")]
    assert [path for path in wanted if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", SPECS)
def test_every_public_function_is_documented(name):
    spec = SPECS[name]
    assert spec.function is getattr(structops.ops, name)
    assert name in structops.ops.__all__
    text = inspect.getdoc(spec.function)
    for part in ("Args:", "Returns:", "Raises:", *(f"{p}:" for p in inspect.signature(spec.function).parameters)):
        assert part in text, f"the docstring lacks {part}"


@pytest.mark.parametrize("name", SPECS)
def test_every_database_is_broad(name):
    spec = SPECS[name]
    for tag in ("quick", "empty", "hostile", "large", *(["gradient"] if spec.differentiable else [])):
        assert spec.tagged(tag), f"no case is tagged {tag}"
    assert spec.errors
    parameters = set(inspect.signature(spec.function).parameters)
    assert {*spec.data, *spec.layouts, *spec.differentiable} <= parameters
    for case in spec.cases:
        assert set(case.draw()) <= parameters, case.name
        for a, b in zip(map(str, case.draw().values()), map(str, case.draw().values()), strict=True):
            assert a == b, f"{case.name} is not the same twice"


#: Functions that make Python objects of another's tensors: what they return is no matter for the kit's checks.
OF_OBJECTS = {"masks_to_rle": "encode_masks"}


def test_public_names():
    for function in structops.ops.__all__:
        assert OF_OBJECTS.get(function, function) in SPECS, f"{function} has no spec"
