# Two commands for people in a hurry; configure, ninja and meson do the work.

# Another QEMU than the default: make check BASE=10.2 builds in build-10.2/.
BASE ?=
BUILD ?= build$(if $(BASE),-$(BASE))

.PHONY: all demo check check-asan check-docs series check-series install clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

options = $(if $(BASE),--base=$(BASE))

# In a port's tree, these are not links but copies.
copies = $(if $(BASE),$(shell sed -n 's,^diff --git a/.* b/,,p' ports/$(BASE)/files.patch 2> /dev/null))

%/build.ninja: $(wildcard patches/* patches/*/* ports/*/* ports/*/*/*) $(copies)
	@if [ -x $*/egm-reconfigure ]; then $*/egm-reconfigure; \
	else mkdir -p $* && cd $* && $(CURDIR)/configure $(options); fi
	@touch $@

# Only what the demo needs: the first result comes sooner.
demo: $(BUILD)/build.ninja
	@ninja -C $(BUILD) qemu-system-aarch64
	@scripts/demo $(BUILD)

check: all
	@scripts/check $(BUILD)

# Line numbers in reports need -g1; -O1 halves the time of the build. As shared
# libraries, the sanitizers of gcc 12 don't agree on where reports go, and those
# of UBSan would be lost.
$(BUILD)-asan/build.ninja: options += --enable-asan --enable-ubsan \
	--extra-cflags=-g1 -Doptimization=1 \
	--extra-ldflags='-static-libasan -static-libubsan'

check-asan: $(BUILD)-asan/build.ninja
	@scripts/check-asan $(BUILD)-asan

check-docs: $(BUILD)/build.ninja
	@scripts/check-docs $(BUILD)

# For qemu-devel: the patches, ready to send, and the proof that they are.
series: $(BUILD)/build.ninja
	@scripts/export-series -b $(BUILD)

# FULL=--full builds all of QEMU after each patch, and runs the fast tests.
check-series: series
	@scripts/check-series -b $(BUILD) $(FULL)

install: all
	@ninja -C $(BUILD) install

clean:
	rm -rf $(BUILD) $(BUILD)-asan
