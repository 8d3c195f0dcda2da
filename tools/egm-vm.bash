# SPDX-License-Identifier: GPL-2.0-or-later
#
# bash completion for egm-vm and egm-report

# For tests: where /sys is
_egm_root=

# PCI addresses of the GPUs of all regions, or of their virtual functions
_egm_gpus() {
    local address found device=$_egm_root/sys/bus/pci/devices

    for address in $(cd "$_egm_root/sys/class/egm" 2> /dev/null &&
                     { cat ./*/gpu_devices; ls ./*/; } 2> /dev/null |
                     grep -E '^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$' |
                     sort -u); do
        found=$(readlink "$device/$address"/virtfn* 2> /dev/null)
        echo "${found:-$address}"
    done | sed 's,.*/,,'
}

# Nodes of the GPUs
_egm_nodes() {
    local address

    for address in $(_egm_gpus); do
        cat "$_egm_root/sys/bus/pci/devices/$address/numa_node"
    done 2> /dev/null | sort -u
}

# PCI addresses of the NICs on the nodes of GPUs
_egm_nics() {
    local device nodes

    nodes=$(_egm_nodes)
    for device in "$_egm_root"/sys/bus/pci/devices/*; do
        [[ $(cat "$device/class" 2> /dev/null) == 0x02* ]] &&
            grep -qxe "$(cat "$device/numa_node" 2> /dev/null)" <<< "$nodes" && echo "${device##*/}"
    done
}

# _egm_reply WORD CANDIDATE...: those that WORD begins
#
# readline replaces only what is behind the last of COMP_WORDBREAKS, such as the colons
# of PCI addresses.
_egm_reply() {
    local word=$1 behind candidate candidates
    shift
    # compgen -W would run commands in names, such as those of network interfaces.
    read -rd '' -a candidates <<< "$*"
    COMPREPLY=()
    for candidate in "${candidates[@]}"; do
        [[ $candidate != "$word"* ]] || COMPREPLY+=("$candidate")
    done
    behind=${word##*["$COMP_WORDBREAKS"]}
    COMPREPLY=("${COMPREPLY[@]#"${word%"$behind"}"}")
}

_egm_files() {
    compopt -o filenames 2> /dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_egm_vm() {
    local line=${COMP_LINE:0:COMP_POINT} current previous what=host word kind list options words=()
    local host='--help --version --root' shape='--gpus --socket --cpus --memory --initiators'
    local vm='--name --disk --cdrom --vars --net --accel --smmu --no-pin --no-check --iommufd'
    vm+=' --type1 --qemu --firmware'

    # Words are separated by space here, whatever COMP_WORDBREAKS is.
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    current=${words[-1]} previous=${words[-2]}
    for word in "${words[@]:1:${#words[@]}-2}"; do
        case $word in
        --) return ;;       # QEMU's options
        host | check | qemu | libvirt | svg) [ "$word" = "${words[1]}" ] && what=$word ;;
        esac
    done
    case $previous in
    --gpus | --nic)
        [ "$previous" = --nic ] && kind=nics || kind=gpus
        list=${current%"${current##*,}"}
        mapfile -t words < <("_egm_$kind" | grep -vxF "${list//,/$'\n'}")
        [ -n "$list" ] || [ "$kind" = nics ] || words+=(all free)
        compopt -o nospace 2> /dev/null     # another one can follow
        _egm_reply "$current" "${words[@]/#/$list}" ;;
    --memory) _egm_reply "$current" all ;;
    --accel) _egm_reply "$current" kvm tcg ;;
    --smmu) _egm_reply "$current" auto off ;;
    --net)
        words=(user none)
        for word in "$_egm_root"/sys/class/net/*/bridge; do
            word=${word%/bridge}
            [ "${word##*/}" = '*' ] || words+=("${word##*/}")
        done
        _egm_reply "$current" "${words[@]}" ;;
    --socket) _egm_reply "$current" "$(_egm_nodes)" ;;
    --disk | --cdrom | --vars | --qemu | --firmware | --root | --qmp | --script) _egm_files "$current" ;;
    --cpus | --initiators | --name | --stand-in) ;;
    *)
        case $what in
        host) options="$host --qemu --firmware --json" ;;
        check) options="$host --qemu --firmware --json --prometheus" ;;
        qemu) options="$host $shape $vm --nic --qmp --run --json --script --stand-in" ;;
        libvirt) options="$host $shape $vm" ;;
        svg) options="$host $shape --host" ;;
        esac
        if [[ $current == -* ]]; then
            _egm_reply "$current" "$options"
        elif [ "$COMP_CWORD" = 1 ]; then
            _egm_reply "$current" host check qemu libvirt svg
        fi ;;
    esac
}
complete -F _egm_vm egm-vm

_egm_report() {
    local current=$2 previous=$3

    case $previous in
    --libvirt) _egm_reply "$current" "$(virsh list --name 2> /dev/null)" ;;
    --rsdp) ;;
    *)
        if [[ $current == -* ]]; then
            _egm_reply "$current" --help --version --qmp --libvirt --rsdp --json
        else
            _egm_files "$current"
        fi ;;
    esac
}
complete -F _egm_report egm-report
