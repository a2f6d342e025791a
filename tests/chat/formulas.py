"""Formulas as language models write them, one a line, for tests and for visual inspection."""

FORMULAS = r"""
x^2 + y^2 = z^2
a_{ij} = \frac{1}{2}\left(b_i + c_j\right)
\frac{-b \pm \sqrt{b^2-4ac}}{2a}
\sqrt[3]{x^3+y^3}
\sum_{i=1}^{n} i = \frac{n(n+1)}{2}
\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}
\lim_{x \to 0} \frac{\sin x}{x} = 1
n \log n
O(n\log n)
\begin{aligned} a &= b + c \\ &= d + e + f \\ x + y &= z \end{aligned}
\begin{align} a &= b \\ c &= d \end{align}
\begin{cases} x & \text{if } x \ge 0 \\ -x & \text{otherwise} \end{cases}
f(x) = \begin{cases} 1, & x \in \mathbb{Q} \\ 0, & x \notin \mathbb{Q} \end{cases}
\begin{pmatrix} a & b \\ c & d \end{pmatrix}^{-1}
\begin{bmatrix} 1 & 0 \\ 0 & 1 \end{bmatrix}
\begin{vmatrix} a & b \\ c & d \end{vmatrix} = ad - bc
\begin{pmatrix} a_{11} & \cdots & a_{1n} \\ \vdots & \ddots & \vdots \\ a_{m1} & \cdots & a_{mn} \end{pmatrix}
\left( \frac{a}{b} \right)^2
\left[ \sum_{k=0}^{n} \binom{n}{k} x^k \right]
\left\{ x \mid x > 0 \right\}
\left\lfloor \frac{n}{2} \right\rfloor + \left\lceil \frac{n}{2} \right\rceil
\left. \frac{df}{dx} \right|_{x=0}
\left\| \mathbf{v} \right\|_2
\text{速度} = \frac{\text{路程}}{\text{时间}}
P(A \mid B) = \frac{P(B \mid A)\,P(A)}{P(B)}
\mathbb{E}[X] = \sum_x x\,p(x)
\mathcal{L}(\theta) = -\sum_i y_i \log \hat{y}_i
\nabla \cdot \mathbf{E} = \frac{\rho}{\varepsilon_0}
\oint_C \mathbf{B} \cdot d\mathbf{l} = \mu_0 I
\frac{\partial^2 u}{\partial t^2} = c^2 \nabla^2 u
\vec{F} = m\vec{a}
\hat{x}, \bar{y}, \tilde{z}, \dot{q}, \ddot{q}
\overline{AB} \parallel \overline{CD}
\overbrace{a + b + c}^{3} + \underbrace{d + e}_{2}
\overrightarrow{AB} + \overrightarrow{BC} = \overrightarrow{AC}
\prod_{p} \frac{1}{1-p^{-s}} = \zeta(s)
\iint_D f(x,y)\,dx\,dy
\iiint_V \rho\, dV
\binom{n}{k} = \frac{n!}{k!(n-k)!}
A \cup B \cap C \setminus D \subseteq E
\forall x \in \mathbb{R}, \exists y : y > x
\neg p \lor q \Rightarrow r \iff s
a \equiv b \pmod{n}
\gcd(a, b) = 1
\max_{x \in S} f(x), \quad \min_{y} g(y), \quad \arg\max_\theta L
\operatorname{softmax}(x_i) = \frac{e^{x_i}}{\sum_j e^{x_j}}
\mathrm{Attention}(Q,K,V) = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{d_k}}\right)V
H_2O \xrightarrow{\Delta} H_2 + O_2
90^\circ, \quad 25\,^\circ\mathrm{C}
\alpha\beta\gamma\delta\epsilon\varepsilon\theta\vartheta\lambda\mu\pi\rho\sigma\phi\varphi\omega\Gamma\Delta\Omega
\dfrac{1}{1+\dfrac{1}{1+\dfrac{1}{x}}}
\cfrac{1}{1+\cfrac{1}{1+x}}
\boxed{E = mc^2}
\color{red}{x} + \textcolor{blue}{y}
\begin{array}{c|cc} & 0 & 1 \\ \hline 0 & 0 & 1 \\ 1 & 1 & 0 \end{array}
\begin{aligned} \dot{x} &= \sigma(y-x) \\ \dot{y} &= \rho x - y - xz \\ \dot{z} &= -\beta z + xy \end{aligned}
\langle \psi | \hat{H} | \psi \rangle
i\hbar \frac{\partial}{\partial t}\Psi = \hat{H}\Psi
e^{i\pi} + 1 = 0
\sum_{\substack{0 \le i \le m \\ 0 < j < n}} P(i,j)
x \mapsto f(x), \quad A \to B, \quad a \gets b
\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}^{T} \begin{bmatrix} x \\ y \end{bmatrix}
\tag{1} a = b
\#\{x\}, 50\%, \$5, a\_b
\mathfrak{g}, \mathsf{T}, \mathtt{x}, \boldsymbol{\alpha}
x'' + y' = f'(x)
\begin{gather} a = b \\ c = d \end{gather}
\begin{split} a &= b \\ &= c \end{split}
\begin{smallmatrix} a & b \\ c & d \end{smallmatrix}
\bigl( x \bigr) \Bigl[ y \Bigr] \biggl\{ z \biggr\}
\not= \neq \leq \geq \ll \gg \approx \sim \propto
\stackrel{def}{=} \overset{!}{=} \underset{x}{\lim}
\lvert x \rvert, \lVert y \rVert
\begin{equation} E = mc^2 \end{equation}
\ce{2H2 + O2 -> 2H2O}, \quad \ce{N2 + 3H2 <=>[Fe][500 C] 2NH3}
\ce{SO4^2-}, \quad \ce{^{227}_{90}Th+}, \quad \ce{[Fe(CN)6]^{4-}}
\ce{CaCO3 ->[\Delta] CaO + CO2 ^}, \quad \ce{CH3-CH=CH2}, \quad \pu{5 m/s}
""".strip().splitlines()
