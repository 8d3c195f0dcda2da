# make X configures QEMU's build if necessary, and runs ninja X in it; meson.build has
# the targets.

# For another QEMU than the default: make check BASE=10.2 builds in work/build-10.2/.
BASE ?=
BUILD ?= $(if $(BASE),work/build-$(BASE),build)
work = work/build$(if $(BASE),-$(BASE))

targets = demo check check-full check-guest-64k check-dist check-docs series check-series \
	check-series-full check-series-objects
.PHONY: all arm64 host install dist clean fuzz check-asan check-fresh libvirt check-libvirt \
	check-libvirt-asan series-libvirt check-series-libvirt \
	check-series-libvirt-apply $(targets)

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(targets): $(BUILD)/build.ninja
	@ninja -C $(BUILD) $@

# QEMU for the arm64 hosts of the tests. Once it exists, make check runs them as well.
arm64: $(BUILD)/build.ninja
	@scripts/install-deps tests
	@scripts/install-deps dist
	@ninja -C $(BUILD) $@

# An emulated Grace host: a shell, or make host RUN='COMMAND'; DRIVER=B|C|M|E KERNEL=6.12
# choose another driver, another kernel. Only the command prints to stdout.
host:
	@$(MAKE) -s $(BUILD)/build.ninja >&2
	@scripts/install-deps tests >&2
	@scripts/host --build $(BUILD) $(if $(KERNEL),--kernel $(KERNEL)) $${RUN:+"$$RUN"}

install: all
	@ninja -C $(BUILD) install

check-asan: $(work)-asan/build.ninja
	@ninja -C $(work)-asan $@

# The first steps of a newcomer, on a bare Debian: make check-fresh SUITE=trixie
check-fresh:
	@scripts/check-fresh $(SUITE)

# Damaged ACPI tables for egm-report, damaged hosts for egm-vm: 10000 of each
fuzz:
	@PYTHONPATH=tests:tools /usr/bin/python3 -m tools.fuzz

options = $(if $(BASE),--base=$(BASE))

# Line numbers in reports need -g1; -O1 halves the time of the build. As shared
# libraries, the sanitizers of gcc 12 write their reports to different places, and the
# reports of UBSan would be lost.
$(work)-asan/build.ninja: options += --enable-asan --enable-ubsan \
	--extra-cflags=-g1 -Doptimization=1 \
	--extra-ldflags='-static-libasan -static-libubsan'

# For arm64. An arm64 machine uses its own libraries and builds for its own release.
$(work)-arm64/build.ninja: options += $(if $(filter aarch64,$(shell uname -m)),\
	--prefix=/opt/acpi-egm-memory,--cross=arm64)

dist: $(work)-arm64/build.ninja
	@scripts/dist $(work)-arm64

check-dist: dist

# In a port's tree, these are not links but copies.
copies = $(wildcard $(shell sed -n 's,^diff --git a/.* b/,,p' patches/$(or $(BASE),10.0)/own-files.patch 2> /dev/null))

%/build.ninja: configure configs/vm-host $(shell find patches -type f) $(copies)
	@if [ -x $*/egm-reconfigure ]; then $*/egm-reconfigure; \
	else mkdir -p $* && cd $* && $(CURDIR)/configure $(options); fi
	@touch $@

# libvirt with the patches of libvirt/
libvirt = work/build-libvirt
$(libvirt)/build.ninja: libvirt/configure $(shell find libvirt/patches -type f) \
		$(shell find libvirt/src libvirt/tests -name '*.[ch]')
	@libvirt/configure
	@touch $@

libvirt: $(libvirt)/build.ninja
	@ninja -C $(libvirt)

# Once libvirt is configured, make check does the same.
check-libvirt: libvirt $(BUILD)/build.ninja
	@scripts/check $(BUILD) 'libvirt*'

$(libvirt)-asan/build.ninja: $(libvirt)/build.ninja
	@libvirt/configure --asan
	@touch $@

# The tests preload mocks, which are loaded before ASan's own library.
check-libvirt-asan: $(libvirt)-asan/build.ninja
	@ASAN_OPTIONS=verify_asan_link_order=0 libvirt/suite --build $(libvirt)-asan

# make series writes it, too.
series: series-libvirt
series-libvirt: $(libvirt)/build.ninja
	@scripts/series -p libvirt export

check-series-libvirt: $(libvirt)/build.ninja
	@scripts/check-series -p libvirt
check-series-libvirt-apply: $(libvirt)/build.ninja
	@scripts/check-series -p libvirt --no-build

clean:
	rm -rf $(BUILD) $(work)-arm64 $(work)-asan $(libvirt) $(libvirt)-asan
