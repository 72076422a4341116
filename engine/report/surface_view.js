// Draws the surface and the cameras of the page: drag turns, the wheel comes nearer, shift and drag moves sideways,
// a double click goes back. No library, nothing from outside.
"use strict";
(() => {
  const canvas = document.getElementById("surface");
  if (!canvas) return;
  const numbers = JSON.parse(document.getElementById("surface-numbers").textContent);
  const gl = canvas.getContext("webgl2", {antialias: true, preserveDrawingBuffer: true});
  const note = document.getElementById("surface-note");
  if (!gl) { note.textContent = "This browser shows no WebGL 2: the surface is not drawn."; return; }

  const bytes = text => {
    const letters = atob(text), found = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
    return found.buffer;
  };
  const minus = (a, b) => a.map((x, i) => x - b[i]);
  const cross = (a, b) => [a[1]*b[2] - a[2]*b[1], a[2]*b[0] - a[0]*b[2], a[0]*b[1] - a[1]*b[0]];
  const dot = (a, b) => a[0]*b[0] + a[1]*b[1] + a[2]*b[2];
  const unit = a => { const length = Math.hypot(...a) || 1; return a.map(x => x / length); };

  // Positions and colors of the surface, six numbers each, then its normals: means of the faces around, by area.
  const surface = () => {
    const places = new Uint16Array(bytes(numbers.vertices)), shades = new Uint8Array(bytes(numbers.colors));
    const faces = new Uint32Array(bytes(numbers.faces)), count = places.length / 3;
    const rows = new Float32Array(9 * count);
    for (let i = 0; i < count; i++) for (let k = 0; k < 3; k++) {
      rows[9*i + k] = numbers.low[k] + places[3*i + k] / 65535 * (numbers.high[k] - numbers.low[k]);
      rows[9*i + 3 + k] = shades[3*i + k] / 255;
    }
    for (let f = 0; f < faces.length; f += 3) {  // without arrays of three: half a second of a large mesh
      const [a, b, c] = [9*faces[f], 9*faces[f + 1], 9*faces[f + 2]];
      const [ux, uy, uz] = [rows[b] - rows[a], rows[b + 1] - rows[a + 1], rows[b + 2] - rows[a + 2]];
      const [vx, vy, vz] = [rows[c] - rows[a], rows[c + 1] - rows[a + 1], rows[c + 2] - rows[a + 2]];
      const [x, y, z] = [uy*vz - uz*vy, uz*vx - ux*vz, ux*vy - uy*vx];
      for (const at of [a, b, c]) { rows[at + 6] += x; rows[at + 7] += y; rows[at + 8] += z; }
    }
    return {rows, faces};
  };

  const compiled = (kind, source) => {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    return shader;
  };
  const program = gl.createProgram();
  gl.attachShader(program, compiled(gl.VERTEX_SHADER, `#version 300 es
    in vec3 place, color, normal; uniform mat4 view; out vec3 shade, across, at;
    void main() { shade = color; across = normal; at = place; gl_Position = view * vec4(place, 1.0); }`));
  gl.attachShader(program, compiled(gl.FRAGMENT_SHADER, `#version 300 es
    precision highp float; in vec3 shade, across, at; uniform vec3 eye; uniform float lit, gray; out vec4 result;
    void main() {
      float facing = abs(dot(normalize(across + 1e-9), normalize(eye - at)));
      result = vec4(mix(shade, vec3(0.75), gray) * mix(1.0, 0.35 + 0.65 * facing, lit), 1.0);
    }`));
  gl.linkProgram(program);
  gl.useProgram(program);
  const uniform = name => gl.getUniformLocation(program, name);

  const uploaded = (rows, width, faces) => {
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, rows, gl.STATIC_DRAW);
    ["place", "color", "normal"].slice(0, width / 3).forEach((name, i) => {
      const slot = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, 3, gl.FLOAT, false, 4 * width, 12 * i);
    });
    if (faces) {
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
    }
    return array;
  };
  const lines = new Float32Array(bytes(numbers.lines)), lineArray = uploaded(lines, 6);
  const mesh = numbers.vertices ? surface() : null;
  const meshArray = mesh && uploaded(mesh.rows, 9, mesh.faces);

  // The eye goes around `focus` on a sphere about the direction up.
  const up = unit(numbers.up), right = unit(cross(up, Math.abs(up[0]) < 0.8 ? [1, 0, 0] : [0, 1, 0]));
  const front = cross(up, right);
  const middle = mesh ? numbers.low.map((x, i) => (x + numbers.high[i]) / 2) : [0, 0, 0];
  const size = mesh ? Math.hypot(...minus(numbers.high, numbers.low)) : 4;
  // At first from where the cameras are, a little aside, so that one sees them too.
  const aside = Math.atan2(dot(numbers.from, front), dot(numbers.from, right)) + 0.35;
  const above = Math.max(-0.2, Math.min(1.2, Math.asin(dot(numbers.from, up))));
  const start = () => ({turn: aside, lift: above, distance: 1.35 * size, focus: middle.slice()});
  let pose = start();

  const axes = () => {
    const [c, s] = [Math.cos(pose.lift), Math.sin(pose.lift)];
    const way = [0, 1, 2].map(k => c * (Math.cos(pose.turn) * right[k] + Math.sin(pose.turn) * front[k]) + s * up[k]);
    const across = unit(cross(up, way));
    return {way, across, above: cross(way, across)};
  };
  const viewOf = (eye, {way, across, above}) => {
    const near = pose.distance / 100, far = pose.distance + 4 * size + 20, focal = 1 / Math.tan(0.4);
    const [a, b] = [focal * canvas.height / canvas.width, focal];
    const [c, d] = [-(far + near) / (far - near), -2 * far * near / (far - near)];
    const rows = [across.map(x => a * x), above.map(x => b * x), way.map(x => c * x), way.map(x => -x)];
    const shift = rows.map((row, i) => -dot(row, eye) + (i === 2 ? d : 0));
    return new Float32Array([0, 1, 2, 3].flatMap(k => k < 3 ? rows.map(row => row[k]) : shift));
  };

  const chosen = id => document.getElementById(id).checked ? 1 : 0;
  const draw = () => {
    const frame = axes(), eye = pose.focus.map((x, k) => x + pose.distance * frame.way[k]);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(1, 1, 1, 1);
    gl.enable(gl.DEPTH_TEST);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(uniform("view"), false, viewOf(eye, frame));
    gl.uniform3fv(uniform("eye"), eye);
    gl.uniform1f(uniform("gray"), 1 - chosen("surface-color"));
    gl.uniform1f(uniform("lit"), chosen("surface-lit"));
    if (mesh) {
      gl.bindVertexArray(meshArray);
      gl.drawElements(gl.TRIANGLES, mesh.faces.length, gl.UNSIGNED_INT, 0);
    }
    if (chosen("surface-cameras")) {
      gl.uniform1f(uniform("gray"), 0);
      gl.uniform1f(uniform("lit"), 0);
      gl.bindVertexArray(lineArray);
      gl.drawArrays(gl.LINES, 0, lines.length / 6);
    }
  };
  const later = () => requestAnimationFrame(draw);

  canvas.addEventListener("pointerdown", event => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", event => {
    if (!event.buttons) return;
    const [dx, dy] = [event.movementX, event.movementY];
    if (event.shiftKey || event.buttons === 2) {
      const {across, above} = axes(), step = pose.distance / canvas.clientHeight;
      pose.focus = pose.focus.map((x, k) => x + step * (dy * above[k] - dx * across[k]));
    } else {
      pose.turn -= 0.008 * dx;
      pose.lift = Math.max(-1.55, Math.min(1.55, pose.lift + 0.008 * dy));
    }
    later();
  });
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    pose.distance = Math.max(size / 50, Math.min(20 * size, pose.distance * Math.exp(0.001 * event.deltaY)));
    later();
  }, {passive: false});
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("dblclick", () => { pose = start(); later(); });
  for (const id of ["surface-color", "surface-lit", "surface-cameras"])
    document.getElementById(id).addEventListener("change", later);
  draw();
})();
