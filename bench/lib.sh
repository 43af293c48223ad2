# Shared by the scripts beside it: builds, starts and ends what they measure. Sourced, not run.
# Everything listens on loopback and dies with the script; only its own children are ended.

set -euo pipefail
export LC_ALL=C

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/doorward-bench.XXXXXX")
DOORWARD=$ROOT/target/release/doorward
BARE=$ROOT/target/release/examples/bare_proxy
SERVER_CORE=0
CLIENT_CORE=1
CHILDREN=()

finish() {
    local pid
    for pid in "${CHILDREN[@]}"; do kill -TERM "$pid" 2>>"$WORK/log" || true; done
    wait 2>>"$WORK/log" || true
    rm -rf "$WORK"
}
trap finish EXIT

die() {
    echo "bench: $*" >&2
    tail -n 20 "$WORK/log" >&2 2>/dev/null || true
    exit 1
}

# need COMMAND[=PACKAGE]...
need() {
    local item missing=()
    for item in "$@"; do
        command -v "${item%%=*}" >/dev/null || missing+=("${item##*=}")
    done
    if ((${#missing[@]})); then
        apt-get install -y --no-install-recommends "${missing[@]}" >&2
    fi
}

build() {
    [[ -n ${BENCH_NO_BUILD:-} ]] || (cd "$ROOT" && cargo build --release --bin doorward --example bare_proxy >&2)
}

# Prints a port that nothing listens on.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# spawn CORE COMMAND...: sets PID, and SPAWNED_AT in µs.
spawn() {
    local core=$1
    shift
    SPAWNED_AT=${EPOCHREALTIME/./}
    taskset -c "$core" "$@" >>"$WORK/log" 2>&1 &
    PID=$!
    CHILDREN+=("$PID")
}

# stop PID: ends one child and waits for it.
stop() {
    kill -TERM "$1" 2>>"$WORK/log" || true
    wait "$1" 2>>"$WORK/log" || true
}

# wait_port PORT [SECONDS]
wait_port() {
    local tries=$((${2:-20} * 50))
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        ((tries-- > 0)) || die "nothing listens on port $1"
        sleep 0.02
    done
}

# Prints the status of GET http://127.0.0.1:PORT/PATH, or nothing.
status_of() {
    local line=
    {
        exec {socket}<>"/dev/tcp/127.0.0.1/$1" || return 0
        printf 'GET %s HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n' "$2" >&"$socket"
        IFS= read -r line <&"$socket" || true
        exec {socket}>&-
    } 2>/dev/null
    line=${line#* }
    echo "${line%% *}"
}

# wait_ready ADMIN_PORT [SECONDS]: sets READY_AT, in µs.
wait_ready() {
    local tries=$((${2:-20} * 500))
    until [[ $(status_of "$1" /readyz) == 200 ]]; do
        ((tries-- > 0)) || die "Doorward is not ready"
        sleep 0.002
    done
    READY_AT=${EPOCHREALTIME/./}
}

# start_nginx CORE NAME: runs nginx on the server blocks that come on standard input. Sets PID.
start_nginx() {
    local core=$1 name=$2 file=$WORK/$2.conf
    {
        echo "daemon off; worker_processes 1; worker_rlimit_nofile 65536; pid $WORK/$name.pid;"
        echo "error_log $WORK/$name.error.log;"
        ((EUID)) || echo "user root;"
        echo "events { worker_connections 16384; }"
        echo "http { access_log off; keepalive_requests 1000000000; open_file_cache max=1000;"
        local kind
        for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $WORK/$name.$kind;"; done
        cat
        echo "}"
    } >"$file"
    spawn "$core" nginx -e "$WORK/$name.error.log" -p "$WORK" -c "$file"
}

# The application: 64 bytes over kept connections, on APP_PORT and APP_SOCKET. The same process
# answers nginx's auth subrequests on AUTH_PORT, at no cost that a real one would not have too.
start_upstream() {
    APP_PORT=$(free_port) AUTH_PORT=$(free_port) APP_SOCKET=$WORK/app.sock
    local body
    body=$(printf '%064d' 0)
    start_nginx "$CLIENT_CORE" upstream <<NGINX
        server { listen 127.0.0.1:$APP_PORT; listen unix:$APP_SOCKET; location / { return 200 "$body"; } }
        server {
            listen 127.0.0.1:$AUTH_PORT;
            add_header X-User-ID user_2bench000000000000000000; add_header X-Client-ID default;
            location / { return 200 ""; }
            location = /counts { stub_status; }
        }
NGINX
    wait_port "$APP_PORT"
    wait_port "$AUTH_PORT"
}

# Prints how many connections the upstream has accepted and how many requests it has had.
upstream_counts() {
    curl -sS "http://127.0.0.1:$AUTH_PORT/counts" | awk 'NR == 3 { print $1, $3 }'
}

# start_bare UPSTREAM [PREFIX...]: sets PORT and PID. UPSTREAM is host:port or unix:/path.
start_bare() {
    local upstream=$1
    shift
    PORT=$(free_port)
    spawn "$SERVER_CORE" "$@" "$BARE" "127.0.0.1:$PORT" "$upstream"
    wait_port "$PORT" 60
}

# start_doorward UPSTREAM [PREFIX...]: sets PORT, ADMIN_PORT and PID, and the state in WORK.
start_doorward() {
    local upstream=$1 name
    shift
    [[ $upstream == unix:* ]] || upstream=http://$upstream
    PORT=$(free_port) ADMIN_PORT=$(free_port) name=doorward.$PORT
    provider_key
    cat >"$WORK/$name.yaml" <<YAML
listen: 127.0.0.1:$PORT
admin: { listen: "127.0.0.1:$ADMIN_PORT" }
upstream: { url: "$upstream" }
sessions: { store: "sqlite://$WORK/$name.db" }
directory: { url: "sqlite://$WORK/$name.directory.db" }
clerk: { issuer: "$ISSUER", pem_file: $WORK/provider.pub }
limits: { workers: 1, exchange_per_minute: 0 }
lifecycle: { drain_delay: 0s, drain_timeout: 1s }
telemetry: { access_log_sample: ${BENCH_ACCESS_LOG:-0.0} }
YAML
    spawn "$SERVER_CORE" "$@" "$DOORWARD" serve --config "$WORK/$name.yaml"
    wait_ready "$ADMIN_PORT" 60
    wait_port "$PORT" 60
}

ISSUER=https://provider.invalid

provider_key() {
    [[ -f $WORK/provider.pub ]] && return
    openssl genrsa -out "$WORK/provider.key" 2048 2>>"$WORK/log"
    openssl rsa -in "$WORK/provider.key" -pubout -out "$WORK/provider.pub" 2>>"$WORK/log"
}

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# Prints a session token of the Doorward on PORT: exchanged for a JWT signed here.
sign_in() {
    local now head claims signature answer
    now=$(date +%s)
    head=$(printf '{"alg":"RS256","typ":"JWT","kid":"bench"}' | base64url)
    claims=$(printf '{"iss":"%s","sub":"user_2bench000000000000000000","sid":"sess_bench","jti":"bench","iat":%d,"nbf":%d,"exp":%d,"v":2,"sts":"active"}' \
        "$ISSUER" "$now" $((now - 10)) $((now + 60)) | base64url)
    signature=$(printf '%s.%s' "$head" "$claims" | openssl dgst -sha256 -sign "$WORK/provider.key" | base64url)
    answer=$(curl -sS -X POST -H "Authorization: Bearer $head.$claims.$signature" "http://127.0.0.1:$1/auth/session")
    [[ $answer =~ \"token\":\ ?\"([^\"]+)\" ]] || die "no session: $answer"
    echo "${BASH_REMATCH[1]}"
}

# ask PORT TOKEN COUNT: makes COUNT requests over one connection, each answered 200. curl, because
# a shell would send a head in several pieces.
ask() {
    curl -sS --fail-early -f -o /dev/null -H "Authorization: Bearer $2" \
        "http://127.0.0.1:$1/items/[1-$3]?expand=owner" || die "port $1 did not answer 200"
}

# CPU time of a process and its children so far, in clock ticks.
cpu_ticks() {
    local pid total=0 stat
    for pid in "$1" $(pgrep -P "$1" || true); do
        stat=$(<"/proc/$pid/stat")
        # The fields after the command's closing parenthesis: utime is the 12th, stime the 13th.
        read -r -a stat <<<"${stat##*) }"
        total=$((total + stat[11] + stat[12]))
    done
    echo "$total"
}

# Resident memory of a process and its children, in KiB.
rss() {
    local pid total=0 size
    for pid in "$1" $(pgrep -P "$1" || true); do
        size=$(awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status")
        total=$((total + size))
    done
    echo "$total"
}
