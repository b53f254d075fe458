#!/bin/sh
# Build the core with AddressSanitizer and UndefinedBehaviorSanitizer beside the usual build, and pass its tests with it.
# Usage, from anywhere: PYTHON=.venv/bin/python tests/_core/sanitize.sh [pytest arguments]
# Mutated connections against the wire, in C++ alone and with leaks looked for: tests/_core/sanitize.sh wire [COUNT [SEED…]]
# A long fuzz: KUMAFAST_FUZZ_SECONDS=300 tests/_core/sanitize.sh -s --timeout=0 -k fuzz
# Mutated connections to the wire and to TLS go before: KUMAFAST_FUZZ_CONNECTIONS=200000 for many, 0 for none.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
compiler=${CXX:-c++}
if [ "${1:-}" = wire ]; then
    count=${2:-1000000}
    shift "$(($# > 2 ? 2 : $#))"
    mkdir -p build
    "$compiler" -std=c++20 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined \
        -o build/wire_fuzz ext/wire_fuzz.cpp
    for seed in "${@:-1}"; do
        printf 'seed %s: ' "$seed"
        ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 build/wire_fuzz "$count" "$seed"
    done
    exit
fi
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
