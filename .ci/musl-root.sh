#!/usr/bin/env bash
# A small root whose only C library is musl, with a CPython in it, for importing and testing a musllinux wheel.
#
#   musl-root.sh build DIR            build it (5 minutes on 2 cores; nothing is done when DIR has one already)
#   musl-root.sh test DIR WHEEL TESTS install WHEEL and what its tests need, and run them inside
#
# Debian has musl itself, and the sources of CPython 3.11, OpenSSL and zlib; its Pythons are all linked to glibc. Wants
# root (apt-get, chroot) and a Debian mirror.
set -euo pipefail
jobs=${JOBS:-2}
say() { printf '%s %s\n' "$(date +%T)" "$*"; }

fetch() { # PACKAGE...: sources, from a list of apt's own beside the machine's
    local suite mirror
    suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' | grep -v security | head -n 1)
    mkdir -p lists/partial
    echo "deb-src $mirror $suite main" >sources.list
    local own=(-o "Dir::Etc::sourcelist=$PWD/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$PWD/lists" -o APT::Sandbox::User=root)
    apt-get "${own[@]}" -qq update
    apt-get "${own[@]}" -qq source --download-only "$@"
}

unpack() { # NAME ARCHIVE
    mkdir -p "$1" && tar -xf "$2" -C "$1" --strip-components=1
}

build() {
    local root=$1 work
    [ ! -e "$root/.ok" ] || return 0
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -yqq --no-install-recommends musl-tools busybox-static unzip make perl xz-utils >/dev/null
    work=$(mktemp -d "${TMPDIR:-/tmp}/musl-root.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    cd "$work"
    fetch python3.11 openssl zlib
    # musl's own headers, and the kernel's behind them; none of glibc's.
    mkdir kernel
    ln -s /usr/include/linux /usr/include/asm-generic kernel/
    ln -s /usr/include/x86_64-linux-gnu/asm kernel/
    # It is Debian's gcc underneath, and would lead CPython's configure and setup.py to the headers of glibc.
    printf '#!/bin/sh\ncase $1 in *-print-multiarch) echo x86_64-linux-musl; exit ;; esac\nexec musl-gcc -idirafter %s/kernel "$@"\n' "$work" >musl-cc
    chmod +x musl-cc
    export CC="$work/musl-cc" CFLAGS="-O1 -fPIC -g0"
    say "zlib"
    unpack z zlib_*.orig.tar.*[2z]
    (cd z && ./configure --static --prefix="$work/deps" && make -j"$jobs" install) >zlib.log 2>&1 || { tail zlib.log; return 1; }
    say "OpenSSL"
    unpack ssl openssl_*.orig.tar.gz
    (cd ssl && ./Configure linux-x86_64 --prefix="$work/deps" --libdir=lib --openssldir=/etc/ssl no-shared no-tests no-engine \
        no-dso no-legacy no-afalgeng && make -j"$jobs" build_libs && make -j"$jobs" build_programs && make install_dev) >ssl.log 2>&1 || { tail -n 5 ssl.log | cut -c1-300; return 1; }
    say "CPython"
    unpack py python3.11_*.orig.tar.*[2z]
    (cd py && ./configure --prefix=/usr --with-openssl="$work/deps" --without-doc-strings --with-ensurepip=install \
        --disable-test-modules CPPFLAGS="-I$work/deps/include" LDFLAGS="-L$work/deps/lib" &&
        make -j"$jobs" && make DESTDIR="$root" install) >py.log 2>&1 || { tail -n 30 py.log; return 1; }
    mkdir -p "$root"/{bin,lib,etc,proc,dev,tmp}
    cp -L /lib/ld-musl-x86_64.so.1 "$root/lib/"
    cp /bin/busybox "$root/bin/"
    mkdir -p "$root/etc/ssl"
    cp ssl/apps/openssl "$root/usr/bin/"
    cp ssl/apps/openssl.cnf "$root/etc/ssl/"
    local name
    for name in sh env ls cat mkdir rm; do ln -sf busybox "$root/bin/$name"; done
    cp /etc/passwd /etc/group "$root/etc/"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    : >"$root/.ok"
    say "done"
}

inside() { # ROOT COMMAND...
    local root=$1
    shift
    unshare --mount --fork sh -c 'mount --bind /proc "$0/proc" && mount --bind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp" &&
        exec chroot "$0" env -i PATH=/usr/bin:/bin HOME=/tmp "$@"' "$root" "$@"
}

test_() {
    local root=$1 wheel=$2 tests=$3 tools
    rm -rf "$root/wheels" "$root/src"
    mkdir -p "$root/wheels" "$root/src"
    cp "$wheel" "$root/wheels/"
    python3 -m pip download -q --disable-pip-version-check --dest "$root/wheels" --only-binary=:all: --implementation cp \
        --python-version 3.11 --platform musllinux_1_2_x86_64 --platform musllinux_1_1_x86_64 "$wheel[test]"
    cp -r "$tests"/. "$root/src/"
    # Without trustme: cryptography's musllinux wheel crashes when it is loaded here. The tests do without.
    tools=$(unzip -p "$wheel" '*/METADATA' | sed -n '/extra == .test/s/^Requires-Dist: \([A-Za-z0-9_-]*\).*/\1/p' | grep -v trustme)
    # shellcheck disable=SC2086
    inside "$root" python3 -m pip install -q --no-index --find-links /wheels --force-reinstall uamqp_cffi $tools
    inside "$root" python3 -c 'import platform, sys, sysconfig, uamqp_cffi
from pip._vendor.packaging.tags import platform_tags
print(sys.version, sysconfig.get_platform(), next(platform_tags()), uamqp_cffi.build_info())'
    inside "$root" sh -c 'cd /src && pytest -q -p no:cacheprovider --maxfail=20'
}

case ${1:-} in
build) build "$(realpath -m "$2")" ;;
test) test_ "$(realpath "$2")" "$(realpath "$3")" "$(realpath "$4")" ;;
*) echo "usage: $0 build DIR | test DIR WHEEL TESTS" >&2; exit 2 ;;
esac
