#!/bin/sh
# Run a recipe that ends in eval, keep what a CI system shows, and end with the gate's exit code.
#
#   docs/ci/eval-gate.sh RECIPE RUN [FOLDER [ID]]
#
# FOLDER (gate) receives report.html, junit.xml, summary.md and gate.json of the stage ID (eval); RUN is the run directory.
# Exit codes are those of ftcli (docs/exit-codes.md): 0 passed, 6 failed, 7 not evaluable. FTCLI names another command.
set -u
if [ $# -lt 2 ]; then
    echo "usage: $0 RECIPE RUN [FOLDER [ID]]" >&2
    exit 2
fi
recipe=$1 run=$2 folder=${3:-gate} id=${4:-eval}

${FTCLI:-ftcli} run "$recipe" --run "$run"
code=$?

rm -rf "$folder"
mkdir -p "$folder" || exit 74
case $code in
0 | 6 | 7) # a verdict, and so a report
    for name in report.html junit.xml summary.md gate.json; do
        file=$run/stages/$id/latest/report/$name
        if [ -f "$file" ]; then cp "$file" "$folder/" || exit 74; fi
    done
    ;;
esac
exit "$code"
