// Runs jq filters as gh does. Each line of the input is a JSON object with the members `filter` and `input` (both text);
// each line of the output has what gh would print (`out`) and its error (`err`, empty for none).
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"

	"github.com/cli/go-gh/v2/pkg/jq"
)

type request struct {
	Filter string `json:"filter"`
	Input  string `json:"input"`
}

type response struct {
	Out string `json:"out"`
	Err string `json:"err"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		var printed bytes.Buffer
		answer := response{}
		if err := jq.Evaluate(strings.NewReader(asked.Input), &printed, asked.Filter); err != nil {
			answer.Err = err.Error()
		}
		answer.Out = printed.String()
		if err := out.Encode(answer); err != nil {
			panic(err)
		}
	}
	if err := lines.Err(); err != nil {
		panic(err)
	}
}
