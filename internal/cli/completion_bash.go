package cli

import "strings"

// bashScript is the script for bash. Unlike cobra's it needs nothing of the package bash-completion, which many servers lack.
// Bash breaks words at = and :, so the line is read anew, and what is before the last such break is cut off the answers.
func bashScript(name string) string {
	return strings.ReplaceAll(`# Completes the command lines of NAME in bash.
_NAME() {
  local line=${COMP_LINE:0:COMP_POINT} words word out reply how cut
  read -ra words <<<"$line"
  word=
  if [[ $line != *[[:space:]] && ${#words[@]} -gt 0 ]]; then
    word=${words[-1]}
    unset 'words[-1]'
  fi
  out=$("${COMP_WORDS[0]}" __completeNoDesc "${words[@]:1}" "$word" 2>/dev/null) || return
  how=${out##*:}
  out=${out%:*}
  cut=${word%"${word##*[=:]}"}
  COMPREPLY=()
  while IFS= read -r reply; do
    [[ -n $reply && $reply == "$word"* ]] && COMPREPLY+=("${reply#"$cut"}")
  done <<<"$out"
  if ((${#COMPREPLY[@]} == 0)); then
    local plain=${word#"$cut"}
    compopt -o filenames 2>/dev/null
    case $how in
      0) while IFS= read -r reply; do COMPREPLY+=("$reply"); done < <(compgen -f -- "$plain") ;;
      16) while IFS= read -r reply; do COMPREPLY+=("$reply"); done < <(compgen -d -- "$plain") ;;
    esac
  elif ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == -* && ${COMPREPLY[0]} == *= ]]; then
    compopt -o nospace 2>/dev/null
  fi
}
complete -F _NAME NAME
`, "NAME", name)
}
