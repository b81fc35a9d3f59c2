#!/bin/sh
# Stores a video with nothing but curl and FFmpeg, per the wire contract, and plays it back.
#
#   plain_client.sh METADATA_URL fmp4|segments FILE
#
# Works in the current folder. The last line it prints is the video's id.
set -eu

metadata=$1
kind=$2
file=$3

fail() {
    echo "plain client: $1" >&2
    exit 1
}

# call STATUS CURL-ARGUMENTS...: the body of an answer that must have this status.
call() {
    want=$1
    shift
    got=$(curl -sS --max-time 60 -o answer.txt -D headers.txt -w '%{http_code}' "$@")
    [ "$got" = "$want" ] || fail "$* answered $got, not $want: $(cat answer.txt)"
    cat answer.txt
}

# text NAME: the first field of this name on standard input.
text() {
    grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4
}

frames() {
    ffprobe -v error -select_streams v:0 -count_frames -show_entries stream=nb_read_frames -of csv=p=0 "$1" | head -n 1
}

# 1. Cut the file.
mkdir cut
case $kind in
fmp4)
    ffmpeg -nostdin -v error -i "$file" -map 0:v:0 -map 0:a:0 -c copy -f hls -hls_time 10 -hls_playlist_type vod \
        -hls_segment_type fmp4 -hls_fmp4_init_filename init.mp4 -hls_segment_filename 'cut/%03d.m4s' cut/index.m3u8
    [ -f cut/init.mp4 ] || mv init.mp4 cut/init.mp4
    ;;
segments)
    ffmpeg -nostdin -v error -i "$file" -map 0:v:0 -map 0:a:0 -c copy -f segment -segment_time 10 \
        -reset_timestamps 1 -segment_format mp4 'cut/%03d.mp4'
    ;;
*) fail "unknown kind $kind" ;;
esac

# 2. A video, and three nodes.
call 201 -X POST -H 'Content-Type: application/json' -d '{"title":"by hand","duration_sec":60}' \
    "$metadata/video" > video.txt
video=$(text video_id < video.txt)
call 200 "$metadata/nodes/healthy" > nodes.txt
nodes=$(grep -o '"node_url":"[^"]*"' nodes.txt | cut -d '"' -f 4 | head -n 3)
[ "$(echo "$nodes" | wc -l)" -eq 3 ] || fail "fewer than three nodes: $nodes"

# store CHUNK-ID FILE: to each of the nodes, then committed.
store() {
    sum=$(sha256sum "$2" | cut -d ' ' -f 1)
    urls=
    for node in $nodes; do
        call 201 -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$2" "$node/chunk/$1" > put.txt
        grep -qi "^etag: \"$sum\"" headers.txt || fail "$node did not answer with the hash of $1"
        urls="$urls,\"$node\""
    done
    # The same bytes again are no conflict.
    call 200 -X PUT --data-binary "@$2" "$node/chunk/$1" > put.txt
    call 200 -X POST -H 'Content-Type: application/json' -d "{\"node_urls\":[${urls#,}],\"checksum\":\"$sum\"}" \
        "$metadata/chunk/$1/commit" > commit.txt
}

# 3. Store all chunks; finalize is refused until they are there.
number=0
[ "$kind" = segments ] || store "$video-init" cut/init.mp4
call 409 -X POST "$metadata/video/$video/finalize" > early.txt
for chunk in cut/[0-9]*; do
    store "$video-chunk-$(printf %03d "$number")" "$chunk"
    number=$((number + 1))
done
call 200 -X POST "$metadata/video/$video/finalize" > finalized.txt

# 4. Other bytes under a stored id are a conflict.
echo 'other bytes' > other.bin
for node in $nodes; do
    call 409 -X PUT --data-binary @other.bin "$node/chunk/$video-chunk-000" > conflict.txt
done

# 5. The manifest: one line for each chunk, with its id, hash and replicas.
call 200 "$metadata/manifest/$video" > manifest.json
grep -q "\"total_chunks\":$number[,}]" manifest.json || fail "the manifest does not have $number chunks"
sed 's/{"chunk_id"/\n&/g' manifest.json | grep '^{"chunk_id"' > chunks.txt

# 6. Fetch every chunk from its replicas, each time from the next one, and compare the hash.
mkdir got
turn=0
while read -r line; do
    id=$(echo "$line" | text chunk_id)
    sum=$(echo "$line" | text checksum)
    replicas=$(echo "$line" | grep -o '"replicas":\[[^]]*\]' | head -n 1 | grep -o 'http[^"]*')
    turn=$((turn % 3 + 1))
    node=$(echo "$replicas" | sed -n "${turn}p")
    call 200 "$node/chunk/$id" > "got/$id"
    [ "sha256:$(sha256sum "got/$id" | cut -d ' ' -f 1)" = "$sum" ] || fail "$id from $node has another hash"
    call 206 -H 'Range: bytes=0-3' "$node/chunk/$id" > range.bin
    [ "$(wc -c < range.bin)" -eq 4 ] || fail "a range of 4 bytes has another length"
done < chunks.txt

# 7. Play it back: no error, and every frame that went in.
played=0
if [ "$kind" = fmp4 ]; then
    cat "got/$video-init" got/*-chunk-* > whole.mp4
    ffmpeg -nostdin -v error -xerror -i whole.mp4 -f null -
    played=$(frames whole.mp4)
else
    for chunk in got/*-chunk-*; do
        ffmpeg -nostdin -v error -xerror -i "$chunk" -f null -
        played=$((played + $(frames "$chunk")))
    done
fi
[ "$played" = "$(frames "$file")" ] || fail "$played frames came back"
echo "$number chunks, $played frames"
echo "$video"
