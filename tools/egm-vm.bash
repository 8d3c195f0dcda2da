# SPDX-License-Identifier: GPL-2.0-or-later
#
# bash completion for egm-vm

_egm_vm() {
    local current=$2 previous=$3 words=

    case $previous in
    --gpus)
        words="all $(cd /sys/class/egm 2> /dev/null &&
                     { cat ./*/gpu_devices; ls ./*/; } 2> /dev/null |
                     grep -E '^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$' |
                     sort -u)" ;;
    --memory) words=all ;;
    --accel) words='kvm tcg' ;;
    --net) words="user none $(ls /sys/class/net 2> /dev/null)" ;;
    --disk | --qemu | --firmware | --root)
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return ;;
    --cpus | --initiators | --name | --stand-in) ;;
    *)
        if [[ $current == -* ]]; then
            words='--help --gpus --cpus --memory --initiators --name --disk --net
                   --iommufd --type1 --accel --qemu --firmware --run --root
                   --stand-in'
        else
            words='host qemu libvirt svg'
        fi ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _egm_vm egm-vm
