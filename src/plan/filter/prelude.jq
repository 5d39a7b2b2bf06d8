# What jq's manual and gojq have, and jaq has not or gives otherwise. Names with an underscore are native: jaq's own, or of
# `native.rs`.

def del(f): delpaths([path(f)]);
def pick(f): . as $from | reduce path(f) as $path (null; setpath($path; $from | getpath($path)));
def abs: if type == "number" then (if . < 0 then -. else . end) else error("\(type) has no absolute value") end;
def trimstr($text): ltrimstr($text) | rtrimstr($text);
def IN(values): any(values == .; .);
def IN(source; values): any(source == values; .);
def INDEX(stream; key): reduce stream as $row ({}; .[$row | key | tostring] = $row);
def INDEX(key): INDEX(.[]; key);
def indices($what): if . == null then null else _indices($what) end;
def index($what): indices($what) | if . == null then null else .[0] end;
def rindex($what): indices($what) | if . == null then null else .[-1:][0] end;
def limit($count; f): if $count < 0 then error("limit has a negative count") else _limit($count; f) end;
def nth($at; f): if $at < 0 then error("nth has a negative index") else first(skip($at; f)) end;
def flatten: _flatten(1e9);
def flatten($depth): if $depth < 0 then error("flatten has a negative depth") else _flatten($depth) end;
def nearbyint: rint;
def implode: map(if type == "number" and (. > 1114111 or (. >= 55296 and . < 57344)) then 65533 else . end) | _implode;
def fromjson: [_fromjson] | if length == 1 then .[0] else error("a text is not one JSON value") end;
def split($by):
  if type == "string" and ($by | type) == "string" then _div($by) else error("split takes texts") end;

def tostream: path(def all: (.[]? | all), .; all) as $path | getpath($path)
  | reduce path(.[]?) as $below ([$path, .]; [$path + $below]);
def fromstream(f): {value: null, done: false} as $none
  | foreach f as $event ($none;
      if .done then $none else . end
      | if ($event | length) == 2
        then setpath(["done"]; ($event[0] | length) == 0) | setpath(["value"] + $event[0]; $event[1])
        else setpath(["done"]; ($event[0] | length) == 1)
        end;
      if .done then .value else empty end);
def truncate_stream(stream):
  . as $depth | null | stream | . as $event
  | if ($event[0] | length) > $depth then setpath([0]; $event[0][$depth:]) else empty end;

def _row(f): if type == "array" then map(f) else error("\(type) is no row") end;
def _cell: if type == "array" or type == "object" then error("\(type) cannot stand in a row") else tostring end;
def @text: tostring;
def @json: tojson;
def @csv: _row(if type == "string" then "\"" + _replaced("\""; "\"\"") + "\"" elif . == null then "" else _cell end)
  | _join(",");
def @tsv: _row(if . == null then "" else _cell | _replaced("\\"; "\\\\") | _replaced("\t"; "\\t")
    | _replaced("\n"; "\\n") | _replaced("\r"; "\\r") end) | _join("\t");
def @base64d: tostring | . + "==="[:(4 - utf8bytelength % 4) % 4] | decode_base64;
def join($by): _join($by);

def _captures: reduce (.captures[] | select(.name != null)) as $one ({}; .[$one.name] = $one.string);
def match($re; $flags): _match($re; $flags)[];
def match($re): match($re; null);
def test($re; $flags): _match($re; $flags) | length > 0;
def test($re): test($re; null);
def capture($re; $flags): match($re; $flags) | _captures;
def capture($re): capture($re; null);
def scan($re; $flags): match($re; "g" + $flags) | if .captures == [] then .string else [.captures[].string] end;
def scan($re): scan($re; null);
def split($re; $flags): _pieces($re; "g" + $flags) | [.[].before];
def splits($re; $flags): split($re; $flags)[];
def splits($re): splits($re; null);
def sub($re; f; $flags):
  reduce _pieces($re; $flags)[] as $piece ([];
    . as $done
    | (if $piece.match == null then [""] else [$piece.match | _captures | f] end) as $new
    | if ($done | length) == 0 then $new | map($piece.before + .)
      elif $piece.match == null then $done | map(. + $piece.before)
      else [range([$done, $new] | map(length) | max) as $at | ($done[$at] // "") + $piece.before + $new[$at]]
      end)
  | .[];
def sub($re; f): sub($re; f; null);
def gsub($re; f; $flags): sub($re; f; "g" + $flags);
def gsub($re; f): gsub($re; f; null);

def strftime($format): _strftime($format | _replaced("%c"; "%a %b %e %H:%M:%S %Y"));
def todate: strftime("%Y-%m-%dT%H:%M:%SZ");
def todateiso8601: todate;
def mktime: if type == "array" and length < 8 then . + [1970, 0, 1, 0, 0, 0, 0, 0][length:] else . end | _mktime;
def _offset: capture("(?<sign>[+-])(?<hours>[0-9]{2}):?(?<minutes>[0-9]{2})$") // {sign: "+", hours: "0", minutes: "0"}
  | ((.hours | tonumber) * 3600 + (.minutes | tonumber) * 60) * (if .sign == "-" then -1 else 1 end);
def strptime($format):
  if type == "string" and ($format | endswith("%z"))
  then _offset as $offset
    | sub("Z$"; "+0000") | sub("(?<hours>[+-][0-9]{2}):(?<minutes>[0-9]{2})$"; .hours + .minutes)
    | _strptime($format) | _mktime - $offset | gmtime
  else _strptime($format)
  end;
