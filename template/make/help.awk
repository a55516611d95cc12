# `make help`: the targets of all makefiles in groups, in lines of at most 100 characters.
#
#   daily           the names of the targets that come first, separated by spaces
#   everything      1: also the targets that only CI and CD use
#   UNKNOWN_TARGET  in the environment: name the targets that are spelled like this one instead

function show(name, text,    line, count, words, i) {
  line = sprintf("  make %-16s", name)
  count = split(text, words, " ")
  for (i = 1; i <= count; i++) {
    if (length(line) + 1 + length(words[i]) > 100) { print line; line = sprintf("%23s", "") }
    line = line " " words[i]
  }
  print line
}

function smallest(a, b, c) { return a < b ? (a < c ? a : c) : (b < c ? b : c) }

# Number of inserted, removed and replaced letters that lead from one word to another (Levenshtein 1965).
function distance(a, b,    i, j, above, row) {
  for (j = 0; j <= length(b); j++) above[j] = j
  for (i = 1; i <= length(a); i++) {
    row[0] = i
    for (j = 1; j <= length(b); j++)
      row[j] = smallest(above[j] + 1, row[j - 1] + 1, above[j - 1] + (substr(a, i, 1) != substr(b, j, 1)))
    for (j = 0; j <= length(b); j++) above[j] = row[j]
  }
  return above[length(b)]
}

FNR == 1 { title = FILENAME == "Makefile" ? "Help" : FILENAME ~ /^make\// ? "Other" : "Yours" }
/^# -+ / { title = $0; sub(/^# -+ /, "", title) }
/^[a-z][a-z0-9-]*:.*## / {
  name = text = $0
  sub(/:.*/, "", name)
  sub(/^[^#]*## /, "", text)
  if (name in texts) next
  texts[name] = text
  if (index(" " daily " ", " " name " ")) next
  if (!(title in members)) titles[++groups] = title
  members[title] = members[title] " " name
}

END {
  if ("UNKNOWN_TARGET" in ENVIRON) {
    unknown = ENVIRON["UNKNOWN_TARGET"]
    best = length(unknown) < 6 ? 2 : 3
    for (name in texts) {
      apart = distance(unknown, name)
      if (apart < best) { best = apart; near = name }
      else if (apart == best && near != "") near = near "` or `make " name
    }
    hint = near == "" ? "" : " Did you mean `make " near "`?"
    print "error: there is no target " unknown "." hint " `make help` lists the targets."
    exit 2
  }
  count = split(daily, names, " ")
  print "Daily work"
  for (i = 1; i <= count; i++) if (names[i] in texts) show(names[i], texts[names[i]])
  for (group = 1; group <= groups; group++) {
    if (titles[group] ~ /^For / && !everything) continue
    print "\n" titles[group]
    count = split(members[titles[group]], names, " ")
    for (i = 1; i <= count; i++) show(names[i], texts[names[i]])
  }
  if (!everything) print "\n`make help-all` adds the targets of CI and CD. QUIET=1 prints errors only."
}
