# How the series for QEMU are configured and tested, by scripts/bisect-series.
#
# SPDX-License-Identifier: GPL-2.0-or-later

# What QEMU's own tests cover next to ours, in seconds
tests=(qtest/numa-test qtest/device-introspect-test qtest/boot-serial-test
       qtest/acpi-egm-memory-test qtest/acpi-egm-memory-tables-test
       qtest/egm-device-test
       unit/test-egm-region unit/test-egm-bad-pages unit/test-ram-holes)

# configure_source SOURCE: in the current directory, if that is not done yet
configure_source() {
    (cd "$top" && cp -p --parents configs/devices/aarch64-softmmu/vm-host.mak "$1")
    [ ! -e build.ninja ] || return 0
    "$1/configure" --target-list=aarch64-softmmu --with-devices-aarch64=vm-host \
        --python=/usr/bin/python3 \
        --cc="$(command -v ccache > /dev/null && echo 'ccache ')gcc" \
        --disable-download --without-default-features --enable-system \
        --enable-tcg --enable-kvm --enable-fdt=system --enable-pixman --enable-werror \
        --disable-debug-info "${firmware_options[@]}" &&
    link_firmware &&
    # UEFI as in the other build
    cp -P ../../pc-bios/edk2-a* pc-bios/
}

# run_tests: build all, and run those tests that are there
run_tests() {
    local test programs=()
    ninja -t targets all | sed -n 's/: c_LINKER$//p' > targets
    for test in "${tests[@]}"; do
        ! grep -qx "tests/$test" targets || programs+=("tests/$test")
    done
    nice ninja qemu-system-aarch64 tests/qtest/bios-tables-test "${programs[@]}" \
        > "$log" 2>&1 || failed "does not build"
    for test in "${programs[@]}"; do
        QTEST_QEMU_BINARY=./qemu-system-aarch64 "$test" -k > "$log" 2>&1 ||
            failed "$test fails"
    done
    QTEST_QEMU_BINARY=./qemu-system-aarch64 tests/qtest/bios-tables-test -k \
        -p /aarch64/acpi/virt/egm > "$log" 2>&1 || failed "bios-tables-test fails"
    what="tests: $((${#programs[@]} + 1)) programs"
}
