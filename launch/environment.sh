# Sourced by train.sh and test.sh. `environment DIR EXTRAS` makes the virtual environment DIR from the lock the first
# time, or when setup.cfg or the lock have changed since, and sets python to its interpreter. After that it returns at
# once. PYTHON names the python to make it from; FER_JAX_VENV names an environment of your own, used as it is.

fail() { echo "$(basename "$0"): error: $*" >&2; exit 2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or 3.12 is needed; none of ${PYTHON:-python3.12 python3.11 python3 python} is one (PYTHON=... names another)"
}

has_gpu() { [ -e /proc/driver/nvidia/version ] || nvidia-smi -L >/dev/null 2>&1; }

environment() {
    local venv=$1 extras=$2 base stamp
    if [ -n "${FER_JAX_VENV-}" ]; then
        python=$FER_JAX_VENV/bin/python
        [ -x "$python" ] || fail "FER_JAX_VENV=$FER_JAX_VENV has no bin/python"
        return
    fi
    base=$(find_python) || exit 2
    stamp=$("$base" --version; echo "$extras"; cat setup.cfg launch/lock.txt)
    # One at a time: Slurm and mpirun start several of these at once.
    if command -v flock >/dev/null; then exec 9>"$venv.lock" && flock 9; fi
    if [ "$(cat "$venv/installed" 2>/dev/null)" != "$stamp" ]; then
        echo "installing fer_jax${extras:+[$extras]} for $("$base" --version) into $venv; this happens once" >&2
        "$base" -m venv --clear "$venv" || fail "cannot make $venv; on Debian and Ubuntu: apt-get install python3-venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint launch/lock.txt --no-compile \
            --editable ".${extras:+[$extras]}" || fail "installation failed; the lines above say why"
        # On all cores, where pip takes one. Some packages hold files of other Pythons: nothing that is used.
        trap 'exit 130' INT  # which compileall takes for a failure like these
        "$venv/bin/python" -m compileall -qq -j 0 "$venv/lib" || true
        trap - INT
        echo "$stamp" >"$venv/installed"
    fi
    exec 9>&-
    python=$venv/bin/python
}
