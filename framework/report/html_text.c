/* See html_text.h. */
#include "report/html_text.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"

/* Colours by level of error: c0 (rounding) to c7 (no relation), and cx (not finite). */
static const char style[] =
    ":root{color-scheme:light "
    "dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--line:#d0d7de;--panel:#f6f8fa;"
    "--bad:#b42318;--good:#1a7f37;--warn:#8a5a00;--a:#0550ae;--b:#b35900;--c:#6e7781;"
    "--c0:#f0f4fa;--c1:#d3e2f2;--c2:#a9cbe6;--c3:#7fb3d5;--c4:#f4d58a;--c5:#eda247;--c6:#d9602e;--"
    "c7:#9e1c1c;"
    "--cx:#5b2a86}\n"
    "@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9198a1;--line:#"
    "3d444d;"
    "--panel:#151b23;--bad:#ff7b72;--good:#56d364;--warn:#e3b341;--a:#79c0ff;--b:#ffa657;--c:#"
    "8b949e;"
    "--c0:#18222e;--c1:#1d3549;--c2:#234d6b;--c3:#2f6f96;--c4:#8a6d1f;--c5:#b5761c;--c6:#d9602e;--"
    "c7:#ff7b72;"
    "--cx:#c297ff}}\n"
    "body{font:16px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:0 auto;"
    "max-width:75rem;padding:1rem}\n"
    "h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2rem}\n"
    "a{color:var(--a)}code,pre{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}\n"
    "pre{background:var(--panel);border:1px solid var(--line);padding:.6rem;white-space:pre-wrap}\n"
    ".box{overflow-x:auto;border:1px solid var(--line);border-radius:6px;margin:.5rem "
    "0;padding:.5rem}\n"
    "table{border-collapse:collapse}caption{text-align:left;color:var(--soft)}\n"
    "th,td{text-align:left;vertical-align:top;padding:.2rem .7rem .2rem 0;border-bottom:1px solid "
    "var(--line)}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}\n"
    "td:last-child:not(.n):not(:empty){min-width:16rem}\n"
    ".v{font-weight:600}.FAIL,.ERROR{color:var(--bad)}.PASS{color:var(--good)}"
    ".MARGINAL,.SKIP,.XFAIL,.warning{color:var(--warn)}\n"
    "summary{cursor:pointer;color:var(--a)}dt{color:var(--soft)}dd{margin:0 0 .4rem}\n"
    "svg{display:block}svg text{fill:var(--fg);font:12px system-ui,sans-serif}svg "
    ".soft{fill:var(--soft)}\n"
    ".grid{stroke:var(--line)}.limit{stroke:var(--bad);stroke-dasharray:6 4}\n"
    ".s0{stroke:var(--a);fill:none}.s1{stroke:var(--b);fill:none}.s2{stroke:var(--c);fill:none;"
    "stroke-dasharray:2 3}.p0{fill:var(--a)}.p1{fill:var(--b)}.p2{fill:var(--c)}\n"
    ".h0{stroke:var(--c0)}.h1{stroke:var(--c1)}.h2{stroke:var(--c2)}.h3{stroke:var(--c3)}"
    ".h4{stroke:var(--c4)}.h5{stroke:var(--c5)}.h6{stroke:var(--c6)}.h7{stroke:var(--c7)}"
    ".hx{stroke:var(--cx)}\n";

void rp_html_begin(FILE *out, const char *title, const char *up)
{
    fputs(RP_HTML_BEGINNING
          "<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; img-src data:\">\n"
          "<link rel=\"icon\" href=\"data:,\">\n<title>",
          out);
    rp_html_text(out, title);
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n", style);
    if (up) {
        fputs("<nav><a href=\"", out);
        rp_html_text(out, up);
        fputs("\">All pairs</a></nav>\n", out);
    }
    fputs("<main>\n<h1>", out);
    rp_html_text(out, title);
    fputs("</h1>\n", out);
}

void rp_html_end(FILE *out)
{
    fputs("</main>\n</body>\n</html>\n", out);
}

void rp_html_text(FILE *out, const char *text)
{
    for (size_t n = strlen(text); n > 0;) {
        const size_t length = rp_utf8_sequence(text, n);
        const unsigned char byte = (unsigned char)*text;
        if (length == 0 || (byte < 32 && byte != '\n') || byte == 127)
            fputs("\xEF\xBF\xBD", out);
        else if (length == 1 && strchr("&<>\"'", byte))
            fprintf(out, "&#%d;", byte);
        else
            fwrite(text, 1, length, out);
        text += length ? length : 1;
        n -= length ? length : 1;
    }
}

void rp_html_verdict(FILE *out, const char *verdict)
{
    if (!verdict[0])
        return;
    fputs("<span class=\"v ", out);
    rp_html_text(out, verdict);
    fputs("\">", out);
    rp_html_text(out, verdict);
    fputs("</span>", out);
}

void rp_html_number(FILE *out, double value)
{
    if (isnan(value))
        fputs("not finite", out);
    else
        fprintf(out, "%.3g", value);
}

void rp_html_table_begin(FILE *out, const char *caption, const char *const *headings)
{
    fputs("<div class=\"box\" tabindex=\"0\"><table><caption>", out);
    rp_html_text(out, caption);
    fputs("</caption>\n<tr>", out);
    for (; *headings; headings++) {
        fputs("<th scope=\"col\">", out);
        rp_html_text(out, *headings);
    }
    fputc('\n', out);
}

void rp_html_table_end(FILE *out)
{
    fputs("</table></div>\n", out);
}
