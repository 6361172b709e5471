// Cooperative matrices of 16 x 16: those of NVIDIA's and AMD's tensor units.

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
const SIDE: u32 = 16u;
