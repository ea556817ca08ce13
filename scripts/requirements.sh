# Sourced by the other scripts: installs what they need when it is missing.
# shellcheck shell=bash

# Python environments and models are kept here between runs.
dev_cache=${MODELOCI_DEV_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/modeloci-dev}

say() { printf '\n== %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "must be root to run: $*"
  fi
}

# need COMMAND=PACKAGE...: installs the package of every command that is missing.
need() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "install these and run again: ${missing[*]}"
  say "installing ${missing[*]}"
  as_root apt-get update -qq >&2
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# What it takes to build and to mount.
need_toolchain() {
  command -v cargo >/dev/null || die "no cargo: install Rust first (rustup, or your distribution)"
  need cc=build-essential fusermount3=fuse3
}

# The FUSE device, open to whoever runs the script: udev arranges that where it runs, a fresh
# container may have a device that is root's alone.
need_fuse() {
  [ -e /dev/fuse ] || { command -v modprobe >/dev/null && as_root modprobe fuse 2>/dev/null; } || true
  [ -e /dev/fuse ] || die "no /dev/fuse: load the fuse module, or give the container --device /dev/fuse"
  { [ -r /dev/fuse ] && [ -w /dev/fuse ]; } || as_root chmod 0666 /dev/fuse
}

# Readers of gzip, zstd, tar and OCI archives by other people: our archives must please them all.
need_readers() {
  need pigz=pigz igzip=isal zstd=zstd bsdtar=libarchive-tools busybox=busybox skopeo=skopeo \
    umoci=umoci node=nodejs javac=default-jdk-headless
  # Every system has a perl, but not always its modules.
  perl -MIO::Uncompress::Gunzip -e 1 2>/dev/null || need no-perl-modules=perl
}

# File systems that people have, besides those that every kernel and every distribution brings.
need_file_systems() {
  need mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs mkfs.btrfs=btrfs-progs ntfs-3g=ntfs-3g \
    mkfs.exfat=exfatprogs mount.exfat-fuse=exfat-fuse bindfs=bindfs
}

# What reads a mount under load and verifies what it reads.
need_load() {
  need fio=fio
}

# llama.cpp for Python, with its binary. Pinned: its interface moves.
llama_cpp=xllamacpp==2026.10.11549

# python_with REQUIREMENT...: prints the python of an environment that has them. Made by $base with
# $venv_options, where they are set.
python_with() {
  local base=${base:-python3} key dir
  need "$base=python3"
  "$base" -c 'import ensurepip, venv' 2>/dev/null || need no-venv=python3-venv
  key=$({ "$base" --version && printf '%s\n' ${venv_options:-} "$@"; } | sha256sum | cut -c1-16)
  dir=$dev_cache/python-$key
  mkdir -p "$dev_cache"
  (
    # Two scripts may want the same environment at once.
    flock 9
    if [ ! -e "$dir/ready" ]; then
      say "python environment with: ${*:-nothing more}"
      rm -rf "$dir"
      # shellcheck disable=SC2086
      "$base" -m venv ${venv_options:-} "$dir"
      [ $# = 0 ] || "$dir/bin/python" -m pip install -q --only-binary=:all: "$@"
      touch "$dir/ready"
    fi
  ) 9>"$dir.lock" >&2
  printf '%s\n' "$dir/bin/python"
}

# torch_python: prints the python of an environment that has torch: the distribution's, built for
# processors alone. The one of the package index brings gigabytes for graphics cards.
torch_python() {
  /usr/bin/python3 -c 'import torch' 2>/dev/null || need no-torch=python3-torch
  base=/usr/bin/python3 venv_options=--system-site-packages python_with safetensors
}
