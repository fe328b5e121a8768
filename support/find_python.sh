#!/usr/bin/env bash
# usage: find_python.sh "3.12 3.11" [PYTHON]     prints the first interpreter that is one of the versions, in their order
# PYTHON is the only one looked at if given. Else: PATH, then the folders of pyenv, uv and conda, newest release first.
# What does not run is passed over: pyenv has a python3.12 on PATH for any 3.12 that is installed, chosen or not. Of a
# virtual environment the Python that it was made with is printed: make may be about to replace the environment.
shopt -s nullglob

named() {
  if [[ -n $2 ]]; then echo "$2" && return; fi
  type -aP "python$1" python3 python
  local conda=${CONDA_EXE%/bin/conda}
  printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1" \
    "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}/cpython-$1".*/bin/"python$1" \
    ${conda:+"$conda"/bin/"python$1" "$conda"/envs/*/bin/"python$1"} | sort -rV
}

for version in $1; do
  while read -r python; do
    "$python" - "$version" 2> /dev/null << 'EOP' && exit
import sys
if "%d.%d" % sys.version_info[:2] != sys.argv[1]:
    sys.exit(1)
print(sys._base_executable)
EOP
  done < <(named "$version" "${2-}")
done
exit 1
