#!/bin/sh
# Ranks the poses of this folder by their binding energy (kcal/mol, lower is better) and keeps the best.
set -eu
awk '/^REMARK VINA RESULT:/ { print $4, FILENAME; nextfile }' pose-*.pdbqt | sort -n >ranking.txt
test -s ranking.txt
read -r energy name <ranking.txt
cp "$name" best.pdbqt
echo "best of $(wc -l <ranking.txt): $name with $energy kcal/mol"
