# Sourced by ./demo and ./test: makes sure that programs are there.
#
# require PROGRAM:PACKAGE… installs the Debian packages of the programs that are missing, as root
# or through sudo without a password; otherwise it says what to type and stops.
require() {
    local wanted missing=() packages=()
    for wanted in "$@"; do
        command -v "${wanted%%:*}" >/dev/null || { missing+=("${wanted%%:*}"); packages+=("${wanted##*:}"); }
    done
    if ! command -v cargo >/dev/null; then
        echo "Rust is missing. Install it from https://rustup.rs and run this again." >&2
        exit 1
    fi
    [ ${#missing[@]} -eq 0 ] && return
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
        echo "Missing: ${missing[*]}. Type this and run again:" >&2
        echo "    sudo apt-get install -y ${packages[*]}" >&2
        exit 1
    fi
    echo "Installing ${packages[*]}" >&2
    "${as_root[@]}" apt-get update -qq >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
}
