# Starts processes, in pipes and in the background, and collects what they say and how they end.
n=0
while [ $n -lt 60 ]; do
  n=$((n + 1))
  said=$(echo $n | cat | sed 's/^/number /')
  [ "$said" = "number $n" ] || { echo "process $n said '$said'"; exit 1; }
  (exit $((n % 7))) &
  wait $!
  [ $? -eq $((n % 7)) ] || { echo "process $n ended wrong"; exit 1; }
done
echo "$n times"
exit 3
