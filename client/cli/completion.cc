// ckptctl completion bash.
#include "client/cli/commands.h"

namespace ckpt::cli {

std::string BashCompletion() {
  return R"bash(# bash completion for ckptctl. Load it: source <(ckptctl completion bash)
_ckptctl() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command='' words='' server=() i
  local global='--server --domain --output --retry-s --help'
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      runs | list | show | save | restore | completion) command=${COMP_WORDS[i]}; break ;;
    esac
  done
  COMPREPLY=()
  [[ $COMP_LINE =~ --server[\ =]+([^\ ]+) ]] && server+=(--server "${BASH_REMATCH[1]}")
  [[ $COMP_LINE =~ --domain[\ =]+([^\ ]+) ]] && server+=(--domain "${BASH_REMATCH[1]}")
  case $before in
    --output) words='table json' ;;
    --format) words='pth safetensors' ;;
    --server | --domain | --retry-s | --limit | --epoch | --step | --metric | --primary-metric | --label | --component | --include) return ;;
    list | show | save | restore)
      words=$(ckptctl "${server[@]}" --retry-s 0 --output json runs 2>/dev/null | sed -n 's/^ *"run": "\(.*\)",$/\1/p') ;;&
    *)
      case $command in
        '') words="runs list show save restore completion $global --version" ;;
        runs) words+=" --limit $global" ;;
        save) words+=" --epoch --step --metric --primary-metric --label --format --no-crc $global" ;;
        restore) words+=" --component --include --format --force $global" ;;
        completion) words="bash $global" ;;
        *) words+=" $global" ;;
      esac
      if [[ $command =~ ^(save|restore)$ && $before != "$command" && $word != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
      fi ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -o filenames -F _ckptctl ckptctl
)bash";
}

}  // namespace ckpt::cli
