#!/bin/sh
# Build the core with AddressSanitizer and UndefinedBehaviorSanitizer beside the usual build, and pass its tests with it.
# Usage, from anywhere: PYTHON=.venv/bin/python tests/_core/sanitize.sh [pytest arguments]
# A long fuzz: KUMAFAST_FUZZ_SECONDS=300 tests/_core/sanitize.sh -s --timeout=0 -k fuzz
# Mutated connections to the wire and to TLS go before: KUMAFAST_FUZZ_CONNECTIONS=200000 for many, 0 for none.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
compiler=${CXX:-c++}
"$python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --upgrade \
    --target build/sanitized --config-settings=build-dir=build/sanitize \
    --config-settings=cmake.define.KUMAFAST_SANITIZE=address,undefined \
    --config-settings=cmake.define.KUMAFAST_FUZZ=ON .
connections=${KUMAFAST_FUZZ_CONNECTIONS:-5000}
for fuzzer in wire_fuzz tls_fuzz; do
    [ "$connections" -eq 0 ] || [ ! -x "build/sanitize/ext/$fuzzer" ] ||
        UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 "build/sanitize/ext/$fuzzer" "$connections" "${KUMAFAST_FUZZ_SEED:-1}"
done
# -S: an editable install's import hook would put its own modules first.
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
export PYTHONPATH="build/sanitized:$packages"
# Python itself frees little at exit, so leaks are what test_core_leaks.py counts.
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:halt_on_error=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export LD_PRELOAD="$("$compiler" -print-file-name=libasan.so):$("$compiler" -print-file-name=libubsan.so):$("$compiler" -print-file-name=libstdc++.so)"
"$python" -S -c 'import kumafast._core.selectors as core; assert "sanitized" in core.__file__, core.__file__'
exec "$python" -S -m pytest -p no:cacheprovider tests/_core --deselect tests/_core/test_core_docs.py::test_stubs_agree_with_what_is_compiled "$@"
