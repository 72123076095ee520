#!/bin/sh
# Builds the C++ llama-server from the llama-cpp-python sdist, as an opponent for bench.engines.
#
#     bench/engines/build_llama_server.sh TARGET_DIR [VERSION]
#     SMMF_BENCH_LLAMA_SERVER=TARGET_DIR/llama-server python -m bench.engines --only llama_cpp
#
# Wants cmake, a C++ compiler and about ten minutes of CPU time; the web UI and TLS are left out.
set -eu
target=$(mkdir -p "$1" && cd "$1" && pwd)
version=${2:-0.3.36}
cd "$target"
[ -e sdist ] || {
  pip download --no-deps --no-binary :all: --no-cache-dir -d . "llama-cpp-python==$version"
  mkdir sdist
  tar xzf "llama_cpp_python-$version.tar.gz" --strip-components 1 -C sdist
}
cmake -S sdist/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
  -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF \
  -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
cmake --build build --target llama-server -j "$(nproc)"
cp build/bin/llama-server "$target/llama-server"
echo "$target/llama-server"
